"""Relearning: how soon a few labelled images bring forgotten classes back."""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmforget.apis.forgetting_config import (
    build_evaluation_config,
    load_config,
    name_run,
    rest_trackers,
)
from mmforget.apis.request import ForgettingRequest
from mmforget.datasets.stream_loader import StreamBatchSampler, build_stream_loader
from mmforget.datasets.stream_sampling import class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.engine.randomness import seed_step
from mmforget.models.checkpoint_fit import check_fit
from mmforget.structures import ForgettingScenario, ForgettingTask, StreamSampling
from mmforget.taps import Stream, StreamOptions, build_tap
from mmforget.trainable import GroupSparseLoRA

_STREAM = 'relearn'


@dataclass(frozen=True)
class RelearnPoint:
    """The detector after some steps of relearning.

    Attributes:
        steps: Optimiser steps so far.
        AP_f: Of the forgotten classes, on all images.
        AP_r: Of the others.
    """

    steps: int
    AP_f: float | None
    AP_r: float | None


@dataclass(frozen=True)
class Relearn:
    """Ordinary training of fresh low-rank adapters in all blocks, on images of forgotten classes.

    What was forgotten for good is learnt anew as slowly as a class that was never seen; what is
    merely silenced comes back within a few steps.

    Attributes:
        images: Labelled images with an object of a forgotten class. Only these objects are
            labelled in them.
        steps: After how many optimiser steps the detector is measured, ascending.
        batch_size: Images per step.
        learning_rate: Of AdamW, constant.
        rank: Of every adapter.
        alpha: Numerator of their scale.
        seed: Of images, batches and adapters.
    """

    images: int = 64
    steps: tuple[int, ...] = (0, 10, 20, 40)
    batch_size: int = 8
    learning_rate: float = 7e-3
    rank: int = 8
    alpha: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or not self.steps or self.steps[0] < 0:
            raise ValueError(
                f'Relearn got steps={self.steps!r}; expected ascending whole numbers >= 0.'
            )
        for name in ('images', 'batch_size', 'rank', 'learning_rate', 'alpha'):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f'Relearn got {name}={getattr(self, name)!r}; expected a positive number.'
                )

    def run(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        classes: Sequence[str],
        data_root: str | None = None,
    ) -> list[RelearnPoint]:
        """Attacks one detector.

        Args:
            config: The config that the detector was trained with.
            checkpoint: The detector that has forgotten.
            classes: What it has forgotten.
            data_root: Replaces the data root of the config.

        Raises:
            ValueError: A class is unknown, or the checkpoint does not fit.
        """
        config = load_config(config)
        built = build_evaluation_config(config, 'val', data_root)
        request = ForgettingRequest(list(classes))
        request.check_classes(built.classes)
        scenario = ForgettingScenario.from_requests(request.tasks, built.classes)
        (task,) = scenario.tasks
        content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
        with tempfile.TemporaryDirectory() as folder:
            built.config.work_dir = folder
            name_run(built.config, _STREAM)
            rest_trackers(built.config)
            runner = Runner.from_cfg(built.config)
            runner.call_hook('before_run')
            check_fit(runner.model, content, str(checkpoint))
            (metric,) = runner.val_loop.evaluator.metrics
            metric.begin(scenario)
            points = []
            for step in self._train(runner.model, config, task):
                if step in self.steps:
                    metric.set_task(task)
                    runner.val_loop.run()
                    scores = metric.last.full
                    points.append(RelearnPoint(step, scores.AP_f, scores.AP_r))
            return points

    def _train(self, model: nn.Module, config: Config, task: ForgettingTask) -> Iterator[int]:
        """Yields the number of steps done, 0 first; the model is then ready to be measured."""
        part = GroupSparseLoRA(self.rank, self.alpha)
        part.inject(model, task, self.seed)
        optimizer = torch.optim.AdamW(part.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        tap = build_tap(model)
        yield 0
        for step, data in enumerate(self._batches(config, task)):
            _train_mode(model, tap.trunk())
            seed_step(self.seed, task.index, step)
            data = model.data_preprocessor(data, training=True)
            samples = data['data_samples']
            streams = {_STREAM: Stream(slice(0, len(samples)), StreamOptions())}
            losses = tap.forward(data['inputs'], samples, streams)[_STREAM].losses
            total: Tensor = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
            optimizer.step()
            yield step + 1

    def _batches(self, config: Config, task: ForgettingTask) -> Any:
        options = dict(config.train_dataloader)
        dataset = DATASETS.build(copy.deepcopy(options['dataset']))
        sampling = StreamSampling(images=self.images)
        images = sample_images(
            class_index(dataset), task.classes, sampling, self.seed, task.index, _STREAM
        )
        stream = StreamDataset(dataset, images, task.classes)
        sampler = StreamBatchSampler(
            len(stream),
            self.batch_size,
            self.seed,
            task.index,
            _STREAM,
            num_steps=max(self.steps),
        )
        return build_stream_loader(stream, sampler)


def _train_mode(model: nn.Module, trunk: Sequence[nn.Module]) -> None:
    """Training mode; statistics and what is frozen stay as they are."""
    model.train()
    for module in (*trunk, *(m for m in model.modules() if isinstance(m, _BatchNorm))):
        module.eval()
