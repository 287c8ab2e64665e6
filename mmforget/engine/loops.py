"""The training loop that takes one forgetting task after another."""

import copy
import json
import resource
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import LogProcessor, Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from mmforget.adapters import concatenate, load_adapters, save_adapters
from mmforget.datasets.annotation_checks import check_categories, checked_boxes, checked_filter
from mmforget.datasets.authors_sampling import AnnotationOrder, annotation_order, authors_images
from mmforget.datasets.image_checks import check_stream_images, check_validation_images
from mmforget.datasets.stream_loader import StreamBatchSampler, build_stream_loader
from mmforget.datasets.stream_sampling import check_forget_classes, class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.engine.activation_checkpointing import check_num_cp, checkpointed_encoder
from mmforget.engine.caches import build_image_cache, build_trunk_cache
from mmforget.engine.checkpoints import (
    RESUME_FILE,
    detector_checkpoint,
    save_atomically,
    save_resume_checkpoint,
    unpack_message_hub,
)
from mmforget.engine.checks import check_budget, check_method, check_optimizer, check_trials
from mmforget.engine.compilation import compiled
from mmforget.engine.finite import check_finite, check_weights, matching_explained, on_host
from mmforget.engine.fresh_detector import fresh_detector
from mmforget.engine.hooks import LoopStateHook, ProgressHook, TrainableHook
from mmforget.engine.host_memory import keep_freed_memory
from mmforget.engine.log_processor import ForgettingLogProcessor
from mmforget.engine.measurement import PlainWeights, StreamMeasurement
from mmforget.engine.randomness import derive_seed, seed_step
from mmforget.engine.ranking import stream_gradients
from mmforget.engine.reference import measured_on
from mmforget.engine.results import read_results, write_results
from mmforget.engine.schedules import fit_schedulers, keep_base_values
from mmforget.engine.step import ForgettingStep
from mmforget.engine.teacher import Teacher
from mmforget.engine.trials import group_gains
from mmforget.engine.work_dir import check_writable, other_run
from mmforget.evaluation import ForgettingMetric
from mmforget.methods import FORGET, RETAIN, ForgettingMethod, TaskContext
from mmforget.models.checkpoint_fit import check_fit
from mmforget.registry import LOOPS, METHODS
from mmforget.structures import ForgettingScenario, ForgettingTask, ResultsRow, StreamSampling
from mmforget.taps import SMALL_IMAGE, TrunkCache, at_once, build_tap
from mmforget.trainable import (
    CombinedParts,
    TrainablePart,
    drawn_weights,
    drop_from_optimizer,
    fetch_nothing,
)
from mmforget.version import __version__

_STREAMS = (FORGET, RETAIN)
# Batches that are loaded ahead, so that the trunk may see images of several at once.
_LOOK_AHEAD = 8


@LOOPS.register_module()
class ContinualForgettingLoop(BaseLoop):
    """For each task: narrow the data, inject, run ``max_steps``, fold, save, evaluate, write.

    Work dir: ``task_<n>.pth`` (plain detector after task n), ``adapters/task_<n>`` (against the
    detector before the task) and ``adapters/cumulative`` (against the loaded detector) in PEFT's
    format, ``forgetting.json``, and ``resume.pth`` for ``--resume``.

    Iterations are counted on through all tasks; the budget and the schedulers are per task. There
    are no epochs: ``before_train_epoch`` is called once, ``after_train_epoch`` never. Besides,
    ``before_forgetting_task`` and ``after_forgetting_task`` are called with ``task``, and
    ``after_forgetting_evaluation`` with ``task`` and its finished ``row``, when all is saved.

    Args:
        runner: The runner.
        dataloader: The ordinary training dataloader; its data set is built and parsed once, and
            every stream is a part of it.
        scenario: ``tasks`` (lists of class names, or numbers of classes out of ``class_order``),
            and optionally ``missing`` (retained classes without data), ``forget`` and ``retain``:
            how each stream is sampled, see ``StreamSampling``. By default both take 10 % of their
            candidate images.
        max_steps: Optimiser steps per task.
        retain_epochs: Instead of it: how often a task goes through its retain stream, a last part
            of a batch left out. So the authors count, whose tasks get shorter and shorter.
        method: Config of a method, ``dict(type='mmforget.GSLoRA', ...)``.
        checkpoint_interval: Steps between resume checkpoints inside a task; by default that of a
            CheckpointHook which counts iterations, or else only task boundaries are saved.
        base: The results file of another run on the same loaded detector, data and scenario; its
            reference is taken instead of evaluating the loaded detector again.
        trunk_cache_mb: Memory for remembering what the frozen trunk gives for an image, in
            training and in evaluation, in MB; 0 computes it every time. Worth it where the pipeline
            draws few variants of an image.
        trunk_cache_disk_mb: The same in files, mapped into memory, for what exceeds that.
        trunk_cache_dir: Where a folder for these files is made; it is removed when the run ends.
            By default the work dir.
        trunk_cache_dtype: ``'bfloat16'`` keeps half of each number's bits, and rounds in training
            and in evaluation alike.
        image_cache_mb: Memory for loaded images, in MB; 0 loads an image each time it is seen. For
            streams with ``augmentations``, without loading processes.
        num_cp: The lowest encoder layers that keep no activations but are computed again in the
            backward pass: less memory, more time. Only layers above the frozen trunk have any.
        compile: ``True`` or arguments of ``torch.compile``, for backbone, neck and the layers of
            encoder and decoder.

    Raises:
        ValueError: The scenario does not fit the data, or an argument is out of range.
        RuntimeError: No hook says what may move, or training is distributed.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, Any],
        scenario: Mapping[str, Any],
        method: Mapping[str, Any],
        max_steps: int | None = None,
        retain_epochs: int | None = None,
        checkpoint_interval: int | None = None,
        base: str | None = None,
        trunk_cache_mb: int = 0,
        trunk_cache_disk_mb: int = 0,
        trunk_cache_dir: str | None = None,
        trunk_cache_dtype: str = 'float32',
        image_cache_mb: int = 0,
        num_cp: int = 0,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        if (max_steps is None) == (retain_epochs is None):
            raise ValueError(
                f'train_cfg has max_steps={max_steps!r} and retain_epochs={retain_epochs!r}; give '
                'one of them, for example max_steps=2000.'
            )
        for name, budget in (('max_steps', max_steps), ('retain_epochs', retain_epochs)):
            if budget is not None:
                _check_positive(name, budget)
        if checkpoint_interval is not None:
            _check_positive('checkpoint_interval', checkpoint_interval)
        if get_world_size() > 1:
            raise RuntimeError(
                'ContinualForgettingLoop runs in one process for now; start it without a launcher.'
            )
        self.method_config = dict(method)
        self.method = build_method(self.method_config)  # Errors in arguments show before any work.
        self.teacher: Teacher | None = None
        check_writable(runner.work_dir)
        self.trunk_cache = build_trunk_cache(
            trunk_cache_mb,
            trunk_cache_disk_mb,
            trunk_cache_dir,
            trunk_cache_dtype,
            runner.work_dir,
        )
        self.samplings = _read_samplings(scenario)
        self.image_cache = build_image_cache(image_cache_mb, self.samplings, dataloader)
        # The runner builds these for the detector before injection and forgets the configs.
        self.optimizer_config = copy.deepcopy(runner.optim_wrapper)
        self.scheduler_config = copy.deepcopy(runner.param_schedulers)
        self.dataloader_config = copy.deepcopy(dict(dataloader))
        for config in (dataloader, runner._val_dataloader):
            check_categories(config.get('dataset') if isinstance(config, Mapping) else None)
        with checked_boxes(), checked_filter():
            super().__init__(runner, dataloader)
        self.scenario = ForgettingScenario.from_config(
            scenario, self.dataloader.dataset.metainfo['classes']
        )
        self.trainable_hooks = _find_trainable_hooks(runner)
        self.index = class_index(self.dataloader.dataset)
        self.task_steps = (
            self._steps_of_epochs(retain_epochs)
            if max_steps is None
            else [max_steps] * len(self.scenario.tasks)
        )
        self.checkpoint_interval = _take_over_checkpoints(runner, checkpoint_interval)
        self.num_cp = num_cp
        self.compile = compile
        self.task_index = 0
        self.task_step = 0
        self.current_task: ForgettingTask | None = None
        self.metric: ForgettingMetric | None = None
        self._step: ForgettingStep | None = None
        self.rows: list[dict[str, Any]] = []
        self.stop_training = False
        self._seconds_before_resume = 0.0
        self._trainable_count = 0
        self._batches_before: dict[str, int] = {}
        self._paused = 0.0
        self._loaded_from = str(runner._load_from)
        self._measured_on = measured_on(runner._val_dataloader, runner._val_evaluator)
        self.base: dict[str, Any] | None = self._base_of(base) if base else None
        self._iter = 0
        self._epoch = 0
        self._weights_loaded = False
        self._resumed = False
        self._live: TrainablePart | None = None
        self._check_parts(self.method)
        _forget_pretrained_backbone(runner)
        _log_by_iteration(runner)
        runner.register_hook(LoopStateHook())
        runner.register_hook(ProgressHook())

    def _steps_of_epochs(self, epochs: int) -> list[int]:
        """Steps of each task that make ``epochs`` passes over its retain stream."""
        batch_size = self._batch_size(RETAIN)
        images = [len(self._stream(task, RETAIN)) for task in self.scenario.tasks]
        if min(images) < batch_size:
            raise ValueError(
                f'retain_epochs={epochs}: the retain streams have {images} images, fewer than a '
                f'batch of {batch_size} in one task. Give max_steps instead, or a smaller '
                'batch_size.'
            )
        return [epochs * (number // batch_size) for number in images]

    def build_trainable(self) -> TrainablePart:
        """What may move in one task: that of the one hook, or of all of them together."""
        parts = [hook.build() for hook in self.trainable_hooks]
        return parts[0] if len(parts) == 1 else CombinedParts(parts)

    def _check_parts(self, method: ForgettingMethod) -> None:
        """What would fail in one of the tasks fails here, before any work."""
        model, work_dir = self.runner.model, self.runner.work_dir
        part = self.build_trainable()
        check_method(method, build_tap(model), self.scenario)
        part.check(model, self.scenario)
        check_budget(part, min(self.task_steps))
        check_trials(part, method)
        check_optimizer(part, self.optimizer_config)
        check_num_cp(model, self.num_cp)
        check_forget_classes(self.index, self.scenario)
        streams = [self._stream(t, name) for t in self.scenario.tasks for name in _STREAMS]
        images = {int(image) for stream in streams for image in stream.image_indices}
        check_stream_images(self.dataloader.dataset, sorted(images))
        if self.trunk_cache is not None:
            self.trunk_cache.images_at_once = self._images_at_once()
        if not self.runner._resume and (found := other_run(work_dir, self._new_identity())):
            self.runner.logger.warning(
                f'{work_dir} holds a {found}: it is overwritten. --resume would go on with it.'
            )

    @cached_property
    def annotation_order(self) -> AnnotationOrder:
        """For streams with ``authors_seed``; reading COCO's file takes a while."""
        return annotation_order(self.dataloader.dataset)

    @cached_property
    def config_text(self) -> str:
        """The config as every checkpoint holds it; formatting it takes half a second."""
        return self.runner.cfg.pretty_text

    @property
    def max_iters(self) -> int:
        """Steps of all tasks together."""
        return sum(self.task_steps)

    @property
    def max_steps(self) -> int:
        """Steps of the current task, when all are done of the last."""
        return self.task_steps[min(self.task_index, len(self.task_steps) - 1)]

    @property
    def max_epochs(self) -> int:
        """The whole run counts as one epoch."""
        return 1

    @property
    def iter(self) -> int:
        """Steps done, all tasks together."""
        return self._iter

    def only_first(self, tasks: int) -> None:
        """Leaves the tasks after the first few undone: for searches.

        Raises:
            ValueError: There are not so many.
        """
        if not 1 <= tasks <= len(self.scenario.tasks):
            raise ValueError(
                f'The scenario has {len(self.scenario.tasks)} tasks, of which the first {tasks} '
                'cannot be run alone.'
            )
        kept = self.scenario.tasks[:tasks]
        self.scenario = ForgettingScenario(self.scenario.classes, kept)
        self.task_steps = self.task_steps[:tasks]

    @property
    def epoch(self) -> int:
        """Always 0: there are no epochs."""
        return self._epoch

    def run(self) -> nn.Module:
        """Runs all tasks that are not done yet."""
        detector = self.runner.model
        if next(detector.parameters()).device.type == 'cpu':
            keep_freed_memory()
        with compiled(detector, self.compile), checkpointed_encoder(detector, self.num_cp):
            return self._run()

    def _run(self) -> nn.Module:
        runner = self.runner
        if not self._weights_loaded:
            raise RuntimeError(
                'No weights were loaded, so there is nothing to forget. Set load_from to the '
                "trained detector's checkpoint; with --resume the work dir must hold a checkpoint "
                f'(looked in {runner.work_dir}).'
            )
        try:
            self.metric = self._begin_metric()
            self._run_tasks(self.metric)
        finally:
            if self.trunk_cache is not None:
                self.trunk_cache.close()
        return runner.model

    def _run_tasks(self, metric: ForgettingMetric | None) -> None:
        runner = self.runner
        runner.call_hook('before_train')
        if not self._resumed:
            self._save_resume()
        if self.base is None:
            self._evaluate_base(metric)
            self._save_resume()
        # As MMEngine's own iteration-based loop does: timers start with the first epoch.
        runner.call_hook('before_train_epoch')
        while self.task_index < len(self.scenario.tasks) and not self.stop_training:
            self._run_task(self.scenario.tasks[self.task_index], metric)
        self._save_cumulative()
        runner.call_hook('after_train')

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Called when a checkpoint was read, before its tensors reach the model.

        Args:
            checkpoint: Changed in place: the message hub becomes what MMEngine expects.
        """
        if self.method.teacher_streams:
            self.teacher = Teacher(self.runner.model, self._teacher_cache())
        if self.runner._resume and isinstance(checkpoint, Mapping):
            self._restore_state(checkpoint)
        check_fit(self.runner.model, checkpoint, self.runner._load_from or RESUME_FILE)
        self._weights_loaded = True

    def _restore_state(self, checkpoint: dict[str, Any]) -> None:
        """Goes on where a checkpoint of this loop was written."""
        state = checkpoint.get('meta', {}).get('mmforget')
        if state is None:
            raise ValueError(
                'The checkpoint to resume from was not written by ContinualForgettingLoop. Resume '
                f'from its {RESUME_FILE}, or start anew without --resume and with load_from.'
            )
        self._check_same_run(state)
        self._resumed = True
        self.task_index, self.task_step = state['task_index'], state['task_step']
        self.base, self.rows = state['base'], list(state['rows'])
        self._seconds_before_resume = state['seconds']
        self._trainable_count = state['trainable_count']
        self._batches_before = dict(state['batches_before'])
        self._loaded_from = state['loaded_from']
        checkpoint['message_hub'] = unpack_message_hub(checkpoint['message_hub'])
        if state['trainable'] is not None:
            task = self.scenario.tasks[self.task_index]
            trainable = self.build_trainable()
            trainable.restore(
                self.runner.model,
                task,
                derive_seed(state['seed'], task.index),
                state['trainable'],
            )
            self._begin_method(task, trainable)
            self._live = trainable
            self._build_optimizer(trainable)
        if state['method']:
            self.method.load_state_dict(state['method'])
        if self.teacher is not None:
            self.teacher.load_state_dict(state['teacher'])

    def _check_same_run(self, state: Mapping[str, Any]) -> None:
        """Refuses to go on with another scenario than the one that was begun."""
        here = self._identity()
        for key, value in here.items():
            if state['identity'].get(key) != value:
                raise ValueError(
                    f'The checkpoint was written with {key}={state["identity"].get(key)!r}, the '
                    f'config says {value!r}. Resume with the config of the run, or start anew in '
                    'another work dir.'
                )

    def _identity(self) -> dict[str, Any]:
        """What makes a run the one it is, as plain types; the detector it began with aside."""
        identity = {
            'tasks': [list(task.classes) for task in self.scenario.tasks],
            'max_steps': _one_or_all(self.task_steps),
            'samplings': {name: asdict(self.samplings[name]) for name in _STREAMS},
            'method': self.method_config,
            'trainable': _identity_of(self.trainable_hooks),
            'seed': (self.runner.cfg.get('randomness') or {}).get('seed'),
        }
        if missing := [name for task in self.scenario.tasks for name in task.missing]:
            identity['missing'] = missing
        return json.loads(json.dumps(identity, default=repr))

    def _new_identity(self) -> dict[str, Any]:
        """Of a run that begins, and so knows the detector it begins with."""
        return {**self._identity(), 'loaded_from': self._loaded_from}

    def _begin_metric(self) -> ForgettingMetric | None:
        if self.runner.val_loop is None:
            self.runner.logger.warning('No val_cfg is given: forgetting is not measured.')
            return None
        check_validation_images(self.runner.val_loop.dataloader.dataset)
        for metric in self.runner.val_loop.evaluator.metrics:
            if isinstance(metric, ForgettingMetric):
                metric.begin(self.scenario, self.base)
                return metric
        self.runner.logger.warning(
            'val_evaluator holds no metric of forgetting (mmforget.ForgettingCocoMetric, for '
            'recognition mmforget.ForgettingAccuracy): AP_f, AP_r, AP_o and H are not measured.'
        )
        return None

    @property
    def reference(self) -> dict[str, Any]:
        """What the base depends on: a run in which it is the same has the same base."""
        return {'loaded_from': self._loaded_from, 'measured_on': self._measured_on}

    def _base_of(self, path: str) -> dict[str, Any]:
        """What another run has measured of the loaded detector."""
        document = read_results(path)
        for key, value in self.reference.items():
            found = document['run'].get(key, value)  # Unknown of files of older versions.
            if found != value:
                raise ValueError(
                    f'base={str(path)!r} is of a run with {key}={found!r}, this one has {value!r}: '
                    'its reference is of something else. Leave base out, and it is measured.'
                )
        return document['base']

    def _evaluate_base(self, metric: ForgettingMetric | None) -> None:
        """Measures the loaded detector: the reference of every Drop."""
        self.base = {}
        if metric is not None:
            self.runner.logger.info('Evaluating the loaded detector.')
            metric.set_task(None)
            self._validate()
            self.base = metric.base
        self._write_results()

    def _write_results(self) -> None:
        run = {
            **self._identity(),
            **self.reference,
            'batch_sizes': {name: self._batch_size(name) for name in _STREAMS},
            'mmforget': __version__,
        }
        write_results(self.runner.work_dir, self.base, self.rows, run)

    def _validate(self) -> None:
        """One inference pass over the validation set."""
        if self.trunk_cache is None:
            self.runner.val_loop.run()
            return
        batch_size = self.runner.val_loop.dataloader.batch_size
        with build_tap(self.runner.model, self.trunk_cache).remembering(batch_size):
            self.runner.val_loop.run()

    def _run_task(self, task: ForgettingTask, metric: ForgettingMetric | None) -> None:
        runner = self.runner
        self.current_task = task
        runner.logger.info(f'{task.name}: forget {", ".join(task.classes)}.')
        start = time.perf_counter() - self._seconds_before_resume
        self._paused = 0.0
        _reset_peak_memory()
        if self._live is None:
            self._batches_before = {}
            trainable = self.build_trainable()
            self._measure(task, trainable)
            trainable.inject(runner.model, task, derive_seed(runner.seed, task.index))
            self._begin_method(task, trainable)
            step = self._prepare_step(trainable)
            self._rank_groups(task, step)
            self._try_groups(task, step)
            self._trainable_count = sum(p.numel() for p in trainable.parameters())
            if trainable.parameters():
                self._build_optimizer(trainable)
        else:
            step = self._prepare_step(self._live)
            self._live = None
        self._step = step
        method, trainable = step.method, step.trainable
        runner.call_hook('before_forgetting_task', task=task)
        trains = bool(trainable.parameters() or trainable.group_names)
        for batch in self._looking_ahead(step, self._batches(task)) if trains else ():
            if not trainable.parameters():
                runner.logger.warning(
                    f'{task.name}: every group is dead after {self.task_step} steps, so nothing '
                    'is left to train. Lower the strength of the sparsity.'
                )
                break
            self._run_step(task, step, batch)
            if self._checkpoint_due():
                check_weights(runner.model, task.name, self.task_step)
                self._save_resume(trainable.structure(), self._seconds_since(start))
        check_weights(runner.model, task.name, self.task_step)
        method.after_task()
        row = ResultsRow(
            task=task.index + 1,
            classes=list(task.classes),
            steps=self.task_step,
            images={name: len(self._stream(task, name)) for name in _STREAMS},
            seconds=round(self._seconds_since(start), 3),
            peak_memory_mb=round(_peak_memory_mb(), 1),
            trainable=self._trainable_count,
            trainable_share=0.0,
            groups=trainable.group_norms(),
            batches_before=dict(self._batches_before),
        )
        self._step = None
        self._fold_and_save(task, trainable)
        # Of the plain detector's parameters, as in the paper: adapters are no part of it.
        row.trainable_share = row.trainable / sum(p.numel() for p in runner.model.parameters())
        runner.call_hook('after_forgetting_task', task=task)
        self._evaluate_task(task, metric, row)
        self.rows.append(row.to_dict())
        self.task_index, self.task_step = task.index + 1, 0
        self._iter = sum(self.task_steps[: self.task_index])
        self._seconds_before_resume = 0.0
        self._write_results()
        self._save_resume()
        runner.call_hook('after_forgetting_evaluation', task=task, row=row)

    def _seconds_since(self, start: float) -> float:
        """Of the task's own work: measurements in its midst are none of it."""
        return time.perf_counter() - start - self._paused

    def measure_now(self) -> dict[str, Any]:
        """Scores of the detector as it is in the middle of a task, which goes on as before.

        The time that it takes does not count as the task's.

        Returns:
            ``full``, ``restricted`` and ``per_class``, as in a row of the results file.

        Raises:
            RuntimeError: No task is under way, or forgetting is not measured.
        """
        if self.metric is None or self._step is None or self.current_task is None:
            raise RuntimeError(
                'measure_now was called where no task is under way, or without a metric of '
                'forgetting in val_evaluator.'
            )
        start = time.perf_counter()
        self.metric.set_task(self.current_task)
        self._validate()
        self._step.train()
        self._paused += time.perf_counter() - start
        return self.metric.row()

    def _prepare_step(self, trainable: TrainablePart) -> ForgettingStep:
        model = self.runner.model
        tap = build_tap(model, self.trunk_cache)
        step = ForgettingStep(model, tap, self.method, trainable, self.teacher)
        step.train()
        return step

    def _measure(self, task: ForgettingTask, trainable: TrainablePart) -> None:
        """Lets teacher and method see the plain detector before the task changes it."""
        if self.teacher is None and type(self.method).measure is ForgettingMethod.measure:
            return
        model = self.runner.model
        names = trainable.moving(model)
        if self.teacher is not None:
            self._update_teacher(self.teacher, task, names)
        parameters = dict(model.named_parameters())
        weights = {name: parameters[name] for name in names}
        flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in weights)
        step = ForgettingStep(model, build_tap(model), self.method, PlainWeights(weights))
        measurement = StreamMeasurement(
            step,
            weights,
            lambda: self._batches(task),
            self.method.measured_batches,
            self.runner.seed,
            task,
        )
        self.method.measure(task, measurement)
        self._count_before('measurement', measurement.batches_seen)
        for name, flag in flags.items():
            parameters[name].requires_grad_(flag)

    def _count_before(self, what: str, batches: int) -> None:
        """Notes batches that go through the network before the first step."""
        if batches:
            self._batches_before[what] = batches

    def _update_teacher(self, teacher: Teacher, task: ForgettingTask, names: Sequence[str]) -> None:
        kind = self.method.teacher
        if kind != 'untrained':
            teacher.keep(names, anew=kind == 'previous')
        elif task.index == 0:
            build = partial(fresh_detector, self.runner)
            teacher.replace(drawn_weights(build, self.runner.seed, kept=['']))

    def _rank_groups(self, task: ForgettingTask, step: ForgettingStep) -> None:
        """Lets the trainable part see gradients of both streams before the first step."""
        number = step.trainable.ranking_batches
        if not number:
            return
        forget, retain = stream_gradients(
            step, islice(self._batches(task), number), self.runner.seed, task.index
        )
        self._count_before('ranking', number)
        scores = step.trainable.rank_groups(forget, retain)
        listed = ', '.join(f'{name} {score:.3g}' for name, score in scores.items())
        self.runner.logger.info(f'{task.name}: scores of the groups: {listed}.')

    def _try_groups(self, task: ForgettingTask, step: ForgettingStep) -> None:
        """Lets the trainable part see what each of its groups is worth alone."""
        trainable, plan = step.trainable, step.trainable.trial
        if plan is None:
            return
        gains = group_gains(
            step,
            lambda: self._build_optimizer(trainable),
            list(islice(self._batches(task), plan.steps + plan.held_out)),
            plan,
            self.runner.seed,
            task.index,
        )
        trainable.choose_groups(gains)
        self._count_before('trials', len(gains) * (plan.steps + plan.held_out) + plan.held_out)
        step.train()
        listed = ', '.join(f'{name} {gain:.3g}' for name, gain in gains.items())
        self.runner.logger.info(f'{task.name}: gain of each group alone: {listed}.')

    def _run_step(
        self, task: ForgettingTask, step: ForgettingStep, batch: dict[str, dict[str, Any]]
    ) -> None:
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batch)
        seed_step(runner.seed, task.index, self.task_step)
        step.method.before_step(self.task_step, self.max_steps)
        with (
            runner.optim_wrapper.optim_context(step),
            matching_explained(runner.model, task.name, self.task_step),
        ):
            losses = step(batch, self.task_step)
        total, log_vars = runner.model.parse_losses(losses)
        log_vars = on_host(log_vars)
        check_finite(log_vars['loss'], log_vars, task.name, self.task_step)
        runner.optim_wrapper.update_params(total)
        self.task_step += 1
        optimizer = runner.optim_wrapper.optimizer
        groups = list(optimizer.param_groups)
        step.trainable.after_step(optimizer, self.task_step, self.max_steps)
        step.method.after_step()
        keep_base_values(runner.param_schedulers, groups, optimizer.param_groups)
        runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=batch, outputs=log_vars
        )
        self._iter += 1

    def _begin_method(self, task: ForgettingTask, trainable: TrainablePart) -> None:
        context = TaskContext(self.runner.model, self.scenario.classes, trainable.weights)
        self.method.before_task(task, context)

    def _teacher_cache(self) -> TrunkCache | None:
        """As much memory again as the student's trunk has."""
        own = self.trunk_cache
        return None if own is None or not own.max_bytes else TrunkCache(own.max_bytes)

    def _build_optimizer(self, trainable: TrainablePart) -> OptimWrapper:
        """A new optimiser and new schedulers over what is trainable now."""
        runner = self.runner
        wrapper = runner.build_optim_wrapper(copy.deepcopy(self.optimizer_config))
        assert isinstance(wrapper, OptimWrapper)
        drop_from_optimizer(wrapper.optimizer, trainable.parameters())
        runner.scale_lr(wrapper, runner.auto_scale_lr)
        wrapper.initialize_count_status(runner.model, self._iter, self.max_iters)
        runner.optim_wrapper = wrapper
        runner.param_schedulers = [
            scheduler
            for config in fit_schedulers(self.scheduler_config, self.max_steps)
            for scheduler in runner._build_param_scheduler(config, wrapper)
        ]
        return wrapper

    def _stream(self, task: ForgettingTask, stream: str) -> StreamDataset:
        classes = task.classes if stream == FORGET else task.replayed
        sampling = self.samplings[stream]
        if sampling.authors_seed is None:
            images = sample_images(
                self.index, classes, sampling, self.runner.seed, task.index, stream
            )
        else:
            labels = [self.scenario.classes.index(name) for name in classes]
            images = authors_images(self.annotation_order, labels, sampling, stream)
        return StreamDataset(
            self.dataloader.dataset,
            images,
            classes,
            sampling.unlabelled,
            self.image_cache if sampling.augmentations else None,
        )

    def _batch_sampler(
        self, task: ForgettingTask, stream: StreamDataset, name: str
    ) -> StreamBatchSampler:
        sampling = self.samplings[name]
        return StreamBatchSampler(
            len(stream),
            self._batch_size(name),
            self.runner.seed,
            task.index,
            name,
            start_step=self.task_step,
            num_steps=self.task_steps[task.index],
            augmentations=sampling.augmentations,
            images=stream.image_indices,
        )

    def _batch_size(self, stream: str) -> int:
        return self.samplings[stream].batch_size or self.dataloader_config['batch_size']

    def _batches(self, task: ForgettingTask) -> Iterator[dict[str, dict[str, Any]]]:
        """Both streams side by side, from the step that is due to the task's last."""
        loaders = []
        for name in _STREAMS:
            stream = self._stream(task, name)
            sampler = self._batch_sampler(task, stream, name)
            loaders.append(
                build_stream_loader(stream, sampler, **_loader_options(self.dataloader_config))
            )
        for forget, retain in zip(*loaders, strict=True):
            yield {FORGET: forget, RETAIN: retain}

    def _images_at_once(self) -> int:
        """How many images the trunk takes at once: several if the first batch is small and uniform.

        Of images of many shapes hardly two would go together.
        """
        task = self.scenario.tasks[0]
        items = []
        for name in _STREAMS:
            stream = self._stream(task, name)
            items += [stream[item] for item in self._batch_sampler(task, stream, name).batch(0)]
        if not all(isinstance(item, dict) and isinstance(item['inputs'], Tensor) for item in items):
            return 1
        shapes = {tuple(item['inputs'].shape[-2:]) for item in items}
        small = all(height * width <= SMALL_IMAGE for height, width in shapes)
        return at_once(len(items)) if small and len(shapes) == 1 else 1

    def _looking_ahead(
        self, step: ForgettingStep, batches: Iterator[dict[str, dict[str, Any]]]
    ) -> Iterator[dict[str, dict[str, Any]]]:
        """The batches, the trunk being shown the images of several of them at once."""
        if self.trunk_cache is None:
            yield from batches
            return
        coming: deque[dict[str, dict[str, Any]]] = deque()

        def peeked() -> Iterator[dict[str, dict[str, Any]]]:
            yield from tuple(coming)
            for batch in islice(batches, _LOOK_AHEAD - len(coming)):
                coming.append(batch)
                yield batch

        while coming or list(islice(peeked(), 1)):
            with self.runner.optim_wrapper.optim_context(step):
                step.look_ahead(peeked())
            yield coming.popleft()

    def _checkpoint_due(self) -> bool:
        interval = self.checkpoint_interval
        return (
            interval is not None
            and self.task_step % interval == 0
            and self.task_step < self.max_steps
            # Gradients that wait to be accumulated are in no checkpoint.
            and self.runner.optim_wrapper.should_update()
        )

    def _save_resume(
        self,
        trainable: dict[str, Any] | None = None,
        seconds: float = 0.0,
    ) -> None:
        state = {
            'identity': self._new_identity(),
            'seed': self.runner.seed,
            'task_index': self.task_index,
            'task_step': self.task_step,
            'base': self.base,
            'rows': self.rows,
            'loaded_from': self._loaded_from,
            'trainable_count': self._trainable_count,
            'batches_before': self._batches_before,
            'trainable': trainable,
            'method': self.method.state_dict(),
            'teacher': None if self.teacher is None else self.teacher.state_dict(),
            'seconds': seconds,
        }
        save_resume_checkpoint(self.runner, state, with_optimizer=trainable is not None)

    def _fold_and_save(self, task: ForgettingTask, trainable: TrainablePart) -> None:
        runner = self.runner
        folder = Path(runner.work_dir) / 'adapters'
        folder.mkdir(parents=True, exist_ok=True)
        base = self._loaded_from if task.index == 0 else f'task_{task.index}.pth'
        trainable.save(str(folder / task.name), base)
        trainable.fold(runner.model)
        checkpoint = detector_checkpoint(runner)
        checkpoint['meta']['forgotten'] = [*task.forgotten, *task.classes]
        save_atomically(checkpoint, Path(runner.work_dir) / f'{task.name}.pth')

    def _save_cumulative(self) -> None:
        """Once, at the end: what a task costs must not grow with the tasks that are done."""
        folder = Path(self.runner.work_dir) / 'adapters'
        parts = [folder / task.name for task in self.scenario.tasks[: self.task_index]]
        if parts and all(part.is_dir() for part in parts):
            state = concatenate([load_adapters(part) for part in parts])
            save_adapters(folder / 'cumulative', state, self._loaded_from)

    def _evaluate_task(
        self, task: ForgettingTask, metric: ForgettingMetric | None, row: ResultsRow
    ) -> None:
        if metric is None:
            return
        metric.set_task(task)
        self._validate()
        for key, value in metric.row().items():
            setattr(row, key, value)


def build_method(config: Mapping[str, Any]) -> ForgettingMethod:
    """Builds a method from ``dict(type='mmforget.GSLoRA', ...)``.

    METHODS is no child of an MMEngine registry, so mmdet's scope stays the default one.

    Raises:
        ValueError: The type is missing or unknown.
    """
    arguments = dict(config)
    name = str(arguments.pop('type', '')).removeprefix('mmforget.')
    cls = METHODS.get(name) if name else None
    if cls is None:
        raise ValueError(
            f'method has the type {name!r}; expected one of {sorted(METHODS.module_dict)}, for '
            "example dict(type='mmforget.GSLoRA')."
        )
    return cls(**arguments)


def _read_samplings(scenario: Mapping[str, Any]) -> dict[str, StreamSampling]:
    unknown = set(scenario) - {'tasks', 'class_order', 'missing', *_STREAMS}
    if 'tasks' not in scenario or unknown:
        raise ValueError(
            f'scenario has the keys {sorted(scenario)}; expected tasks and optionally class_order, '
            'missing, forget and retain.'
        )
    return {name: StreamSampling(**scenario.get(name, {'ratio': 0.1})) for name in _STREAMS}


def _find_trainable_hooks(runner: Runner) -> list[TrainableHook]:
    hooks = [hook for hook in runner.hooks if isinstance(hook, TrainableHook)]
    if not hooks:
        raise RuntimeError(
            'custom_hooks holds no hook that says what may move; expected at least one, for '
            "example dict(type='mmforget.GroupSparseLoRAHook', rank=8)."
        )
    return hooks


def _identity_of(hooks: list[TrainableHook]) -> Any:
    found = [{'type': type(hook).__name__, **hook.config} for hook in hooks]
    return found[0] if len(found) == 1 else found


def _forget_pretrained_backbone(runner: Runner) -> None:
    """A checkpoint follows, so nothing is fetched for ``init_cfg=dict(type='Pretrained')``."""
    if runner._load_from is None and not runner._resume:
        return
    fetch_nothing(runner.model)


def _take_over_checkpoints(runner: Runner, interval: int | None) -> int | None:
    """Takes a CheckpointHook's interval over and lets the hook rest (best checkpoints excepted).

    It would write a detector with adapters in it, which no MMDetection loads, and not whole or
    absent.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and not hook.by_epoch:
            if interval is None and hook.interval > 0:
                interval = hook.interval
            hook.interval, hook.save_last = -1, False
    return interval


def _log_by_iteration(runner: Runner) -> None:
    """There are no epochs to show in the log but tasks, whatever the base config says."""
    if type(runner.log_processor) is LogProcessor:
        runner.log_processor = ForgettingLogProcessor.like(runner.log_processor)
    runner.log_processor.by_epoch = False
    for hook in runner.hooks:
        if hasattr(hook, 'log_metric_by_epoch'):
            hook.log_metric_by_epoch = False


def _loader_options(config: Mapping[str, Any]) -> dict[str, Any]:
    own = ('dataset', 'batch_size', 'sampler', 'batch_sampler')
    return {key: value for key, value in config.items() if key not in own}


def _one_or_all(numbers: list[int]) -> int | list[int]:
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f'{name} is {value!r}; expected a positive whole number.')


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory_mb() -> float:
    """On a GPU the task's peak; on a CPU the process's peak so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
