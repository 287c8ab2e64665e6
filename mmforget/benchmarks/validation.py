"""Level ``validation``: the forget, retain and old sets measured once."""

import copy
import tempfile
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmforget.benchmarks import garments
from mmforget.benchmarks.measurement import Action, Case, Detail, Settings
from mmforget.benchmarks.three_passes import ThreePasses, shorten_validation
from mmforget.datasets.garments_scenes import CLASSES
from mmforget.evaluation import ForgettingCocoMetric
from mmforget.evaluation.fast_coco_eval import fast_eval_installed
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.taps import TrunkCache, build_tap

PASSES = 'R0 three passes'
PLAIN = 'one pass'
COLD = 'one pass, trunk cache cold'
WARM = 'one pass, trunk cache warm, last decoder layer moved'
WARM_LOWER = 'one pass, trunk cache warm, first decoder layer moved'
# The first task with old classes.
_TASK = 1
_CACHE_BYTES = 1 << 30
_TRAINING = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks'),
    *('test_dataloader', 'test_cfg', 'test_evaluator'),
)


def second_task(config: Config) -> tuple[ForgettingScenario, ForgettingTask]:
    """The config's scenario and the task that is measured."""
    scenario = ForgettingScenario.from_requests(config.train_cfg.scenario.tasks, CLASSES)
    return scenario, scenario.tasks[_TASK]


class Passes(Action):
    """A pass for each set, see ``ThreePasses``.

    Args:
        settings: Of the benchmark.
    """

    def __init__(self, settings: Settings) -> None:
        config = validation_config(settings)
        self.task = second_task(config)[1]
        self.detector = garments.build_detector(config, settings.device)
        self.passes = ThreePasses(config, Path(tempfile.mkdtemp(dir=settings.scratch)))
        self.passes.prepare(self.task)
        self.scores: dict[str, float] = {}

    def __call__(self) -> None:
        self.scores = self.passes.evaluate(self.detector, self.task)

    def details(self) -> dict[str, Detail]:
        return {name: round(value, 4) for name, value in self.scores.items()}


class OnePass(Action):
    """One pass and ForgettingCocoMetric, which scores all sets by both protocols.

    Args:
        settings: Of the benchmark.
        cached: With a trunk cache.
        cold: Emptied before each pass.
        moved: The decoder layer whose feed-forward network a task has moved since the cache was
            filled; ``None`` for none.
    """

    def __init__(
        self,
        settings: Settings,
        cached: bool = True,
        cold: bool = False,
        moved: int | None = None,
    ) -> None:
        config = validation_config(settings)
        scenario, task = second_task(config)
        plain = garments.named(config, tempfile.mkdtemp(dir=settings.scratch))
        for key in _TRAINING:
            plain.pop(key, None)
        plain.load_from = None
        self.runner = Runner.from_cfg(plain)
        detector = garments.build_detector(config, settings.device)
        self.runner.model.load_state_dict(detector.state_dict())
        self.runner.call_hook('before_run')
        (metric,) = self.runner.val_loop.evaluator.metrics
        assert isinstance(metric, ForgettingCocoMetric)
        metric.begin(scenario)
        metric.set_task(task)
        self.metric = metric
        self.cold = cold
        self.moved = moved
        self.cache = TrunkCache(_CACHE_BYTES) if cached else None

    @property
    def cache_bytes(self) -> int:
        return self.cache.bytes if self.cache is not None else 0

    def __call__(self) -> None:
        if self.cache is None:
            self.runner.val_loop.run()
            return
        if self.cold:
            self.cache = TrunkCache(_CACHE_BYTES)
        with build_tap(self.runner.model, self.cache).remembering():
            self.runner.val_loop.run()

    def warm(self) -> None:
        self()
        if self.moved is not None:
            ffn = self.runner.model.decoder.layers[self.moved].ffn
            with torch.no_grad():  # Too little for another AP, enough for another fingerprint.
                for parameter in ffn.parameters():
                    parameter.mul_(1 + 1e-6)
            self()

    def details(self) -> dict[str, Detail]:
        scores = self.metric.last.restricted
        found = {name: getattr(scores, name) for name in ('AP_f', 'AP_r', 'AP_o')}
        return {name: round(value, 4) for name, value in found.items() if value is not None}


def validation_config(settings: Settings) -> Config:
    """The demo's config, short when quick."""
    config = copy.deepcopy(garments.demo_config(settings))
    if settings.quick:
        shorten_validation(config, Path(settings.scratch) / 'validation', images=12)
    return config


def cases(settings: Settings) -> list[Case]:
    """All of Garments' validation images, after the second task."""
    return [
        Case(
            level='validation',
            title='forget, retain and old sets of Garments',
            reference=PASSES,
            variants={
                PASSES: partial(Passes, settings),
                PLAIN: partial(OnePass, settings, cached=False),
                COLD: partial(OnePass, settings, cold=True),
                WARM: partial(OnePass, settings, moved=-1),
                WARM_LOWER: partial(OnePass, settings, moved=0),
            },
            note='The loaded detector after no training, so that all variants see the same '
            'weights. AP is that of the restricted protocol, which three passes give. Images '
            'are loaded in each pass. R0 scores with pycocotools, mmforget with '
            + ('faster-coco-eval.' if fast_eval_installed() else 'pycocotools, too.'),
        )
    ]
