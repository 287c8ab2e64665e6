"""A loop that looks and does not train: what a run would touch, and how long it would take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch
from torch import nn

from mmforget.adapters import LowRankLayer
from mmforget.engine.host_memory import keep_freed_memory
from mmforget.engine.loops import ContinualForgettingLoop
from mmforget.engine.randomness import derive_seed, seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.registry import LOOPS
from mmforget.structures import ForgettingTask
from mmforget.taps import TrunkCache, build_tap


@dataclass
class TaskPreview:
    """One task of a preview.

    Attributes:
        name: The task's name.
        classes: What it forgets.
        candidates: Stream -> images that hold one of the stream's classes.
        images: Stream -> images that would be drawn.
    """

    name: str
    classes: list[str]
    candidates: dict[str, int]
    images: dict[str, int]


@dataclass
class RunPreview:
    """What a run would do. Times are measured on this machine and extrapolated.

    Attributes:
        tasks: The tasks in their order.
        groups: The groups of the first task that may be trained.
        layers: Their layers, by path.
        chosen_later: The groups are candidates, of which each task chooses when it begins.
        trainable: Parameters of all of them.
        share: The same as a share of the detector's parameters.
        steps: Optimiser steps per task.
        trial_batches: Batches per task that go into choosing the groups, if all are tried.
        seconds_per_step: Of a step whose images the trunk knows already.
        trunk_seconds_per_image: What an image costs when the trunk sees it first.
        trunk_images: Images that the trunk sees; those of several tasks or streams once.
        validation_images: Images of the validation set; 0 without one.
        seconds_per_validation_image: Measured on one batch, when it is seen first.
        seconds_per_known_image: The same when it is seen again, as after every task.
    """

    tasks: list[TaskPreview]
    groups: list[str]
    layers: list[str]
    chosen_later: bool
    trainable: int
    share: float
    steps: int
    trial_batches: int
    seconds_per_step: float
    trunk_seconds_per_image: float
    trunk_images: int
    validation_images: int
    seconds_per_validation_image: float
    seconds_per_known_image: float

    @property
    def training_seconds(self) -> float:
        """Of all tasks, with the choice of groups."""
        batches = (self.steps + self.trial_batches) * len(self.tasks)
        trunk = self.trunk_images * self.trunk_seconds_per_image
        return batches * self.seconds_per_step + trunk

    @property
    def validation_seconds(self) -> float:
        """Of the loaded detector and after every task."""
        known = len(self.tasks) * self.seconds_per_known_image
        return self.validation_images * (self.seconds_per_validation_image + known)


@LOOPS.register_module()
class PreviewLoop(ContinualForgettingLoop):
    """``ContinualForgettingLoop`` up to its first step; ``preview`` holds what was found.

    It takes three real steps of the first task in memory and runs one validation batch. No file
    is written by it. Arguments are those of ``ContinualForgettingLoop``.
    """

    preview: RunPreview

    def run(self) -> nn.Module:
        model = self.runner.model
        if next(model.parameters()).device.type == 'cpu':
            keep_freed_memory()
        task = self.scenario.tasks[0]
        parameters = sum(p.numel() for p in model.parameters())
        trainable = self.build_trainable()
        self._measure(task, trainable)
        trainable.inject(model, task, derive_seed(self.runner.seed, task.index))
        self._begin_method(task, trainable)
        adapted = [name for name, m in model.named_modules() if isinstance(m, LowRankLayer)]
        count = sum(p.numel() for p in trainable.parameters())
        groups = list(trainable.ranked_parameters())
        plan, ranking = trainable.trial, 2 * trainable.ranking_batches
        trials = len(groups) * (plan.steps + plan.held_out) + plan.held_out if plan else 0
        step = self._prepare_step(trainable)
        new, known, images = self._measure_steps(task, step)
        validation_images, of_new, of_known = self._measure_validation()
        self.preview = RunPreview(
            tasks=[self._preview_task(task) for task in self.scenario.tasks],
            groups=groups,
            layers=adapted,
            chosen_later=bool(plan or ranking),
            trainable=count,
            share=count / parameters,
            steps=self.max_steps,
            trial_batches=trials + ranking,
            seconds_per_step=known,
            trunk_seconds_per_image=max(new - known, 0.0) / images,
            trunk_images=len(self._all_images()),
            validation_images=validation_images,
            seconds_per_validation_image=of_new,
            seconds_per_known_image=of_known,
        )
        if self.trunk_cache is not None:
            self.trunk_cache.close()
        return model

    def _all_images(self) -> set[tuple]:
        """What any stream of any task draws, variant by variant; a few steps do not draw all."""
        found: set[tuple] = set()
        for name in (FORGET, RETAIN):
            sampling = self.samplings[name]
            variants = sampling.augmentations or 1
            # A stream draws its variants for itself; a single one is taken for the image as it is.
            stream = name if variants > 1 else ''
            for task in self.scenario.tasks:
                drawn = self.task_steps[task.index] * self._batch_size(name)
                pairs = product(range(variants), self._stream(task, name).image_indices.tolist())
                found |= {(stream, image, draw) for draw, image in islice(pairs, drawn)}
        return found

    def _preview_task(self, task: ForgettingTask) -> TaskPreview:
        classes = {FORGET: task.classes, RETAIN: task.replayed}
        return TaskPreview(
            name=task.name,
            classes=list(task.classes),
            candidates={name: len(self.index.candidates(classes[name])) for name in classes},
            images={name: len(self._stream(task, name)) for name in classes},
        )

    def _measure_steps(
        self, task: ForgettingTask, step: ForgettingStep
    ) -> tuple[float, float, int]:
        """Seconds of a step with new images and with known ones, and how many images it has."""
        self._build_optimizer(step.trainable)
        batches = list(islice(self._batches(task), 2))
        first, second = batches[0], batches[-1]
        images = sum(len(second[name]['inputs']) for name in second)
        # The first step pays for what happens once: allocations, the choice of kernels.
        self._take_step(step, first, task, 0)
        new = _seconds(lambda: self._take_step(step, second, task, 1))
        known = _seconds(lambda: self._take_step(step, second, task, 1))
        # Without a memory for the trunk every step is like the one with new images.
        known = min(new, known) if self._trunk_fits(images * len(batches)) else new
        return new, known, images

    def _take_step(
        self, step: ForgettingStep, batch: dict[str, Any], task: ForgettingTask, number: int
    ) -> None:
        seed_step(self.runner.seed, task.index, number)
        with self.runner.optim_wrapper.optim_context(step):
            losses = step(batch, number)
        total, _ = self.runner.model.parse_losses(losses)
        self.runner.optim_wrapper.update_params(total)

    def _trunk_fits(self, seen: int) -> bool:
        """Whether what the trunk gives for all images can be remembered.

        Args:
            seen: Images that the cache has been asked for so far.
        """
        cache = self.trunk_cache
        if cache is None or not len(cache):
            return False
        return (
            _kept(cache) / seen * len(self._all_images()) <= cache.max_bytes + cache.max_disk_bytes
        )

    def _measure_validation(self) -> tuple[int, float, float]:
        """Images of the validation set, and seconds for one of them: new, and seen before."""
        if self.runner.val_loop is None:
            return 0, 0.0, 0.0
        loader = self.runner.val_loop.dataloader
        model = self.runner.model
        batches = list(islice(loader, 2))

        def infer(batch: dict[str, Any]) -> None:
            with torch.no_grad():
                model.val_step(batch)

        model.eval()
        infer(batches[0])
        cache, images = self.trunk_cache, len(batches[-1]['inputs'])
        with build_tap(model, cache).remembering(loader.batch_size):
            if len(batches) > 1:  # It pays for reading the weights.
                infer(batches[0])
            before = _kept(cache)
            new, known = (_seconds(lambda: infer(batches[-1])) for _ in range(2))
            room = 0 if cache is None else cache.max_bytes + cache.max_disk_bytes - before
            if (_kept(cache) - before) / images * len(loader.dataset) > room:
                known = new
        return len(loader.dataset), new / images, known / images


def _kept(cache: TrunkCache | None) -> int:
    return 0 if cache is None else cache.bytes + cache.disk_bytes


def _seconds(work: Callable[[], None]) -> float:
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Until the GPU, where there is one, has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
