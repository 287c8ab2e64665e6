"""Level ``run``: a whole Garments run of three tasks, evaluation after each included."""

import copy
import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmforget.adapters import find_targets
from mmforget.benchmarks import garments
from mmforget.benchmarks.adapter_libraries import RANK, start_alike, with_loralib
from mmforget.benchmarks.measurement import Action, Case, Detail, Settings
from mmforget.benchmarks.recipe_step import Recipe, RecipeStep, penalty_by_name
from mmforget.benchmarks.three_passes import ThreePasses, shorten_validation
from mmforget.engine.randomness import derive_seed
from mmforget.engine.results import read_results

REFERENCE = 'R0 recipe, loralib, three passes'
OURS = 'mmforget, demo config'


class RecipeRun(Action):
    """The recipe on the config's detector, images and steps, with the authors' own numbers.

    Args:
        config: The demo's config.
        settings: Of the benchmark.
    """

    def __init__(self, config: Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.scores: dict[str, float] = {}
        self.of_tasks: list[float] = []

    def warm(self) -> None:
        """A whole run is not warmed: it begins cold."""

    def __call__(self) -> None:
        settings = self.settings
        detector = garments.build_detector(self.config, settings.device)
        images = garments.TrainingImages(self.config)
        folder = Path(tempfile.mkdtemp(dir=settings.scratch))
        passes = ThreePasses(self.config, folder)
        self.of_tasks = []
        for task in images.scenario.tasks:
            start = time.perf_counter()
            layers = find_targets(detector, 'ffn')
            adapters = with_loralib(detector, layers, RANK)
            start_alike(adapters, derive_seed(settings.seed, task.index))
            for _, lora_B in adapters.values():
                nn.init.zeros_(lora_B)
            step = RecipeStep(detector, [], Recipe(), penalty=penalty_by_name)
            self.trainable = step.trainable
            for batch in images.batches(task, self.config.train_cfg.max_steps):
                step.step(batch)
            fold_loralib(detector, layers)
            self.scores = passes.evaluate(detector, task)
            self.of_tasks.append(time.perf_counter() - start)
        shutil.rmtree(folder)

    def details(self) -> dict[str, Detail]:
        return _of_last_task(self.scores)


@torch.no_grad()
def fold_loralib(model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
    """Puts the plain layers back, with what was learnt in their weights."""
    for name, layer in layers.items():
        adapter = model.get_submodule(name)
        adapter.eval()  # loralib merges here, and returns None.
        layer.weight.copy_(adapter.weight)
        model.set_submodule(name, layer)


class OurRun(Action):
    """MMDetection's runner with mmforget's loop.

    Args:
        config: The config of the run.
        settings: Of the benchmark.
    """

    def __init__(self, config: Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.rows: list[dict[str, Any]] = []
        self._cache_bytes = 0

    @property
    def cache_bytes(self) -> int:
        return self._cache_bytes

    def warm(self) -> None:
        """A whole run is not warmed: it begins cold."""

    def __call__(self) -> None:
        folder = tempfile.mkdtemp(dir=self.settings.scratch)
        runner = Runner.from_cfg(garments.named(self.config, folder))
        self.run(runner)
        cache = runner.train_loop.trunk_cache
        self._cache_bytes = cache.bytes if cache is not None else 0
        self.rows = read_results(Path(folder) / 'forgetting.json')['tasks']
        self.trainable = self.rows[-1]['trainable']
        shutil.rmtree(folder)

    def run(self, runner: Runner) -> None:
        """Trains; a subclass may look on."""
        runner.train()

    def details(self) -> dict[str, Detail]:
        return _of_last_task(self.rows[-1]['restricted'])


def _of_last_task(scores: Mapping[str, float | None]) -> dict[str, Detail]:
    found = {name: scores.get(name) for name in ('AP_f', 'AP_r', 'AP_o')}
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def run_config(settings: Settings) -> Config:
    """The demo's config, short when quick."""
    config = copy.deepcopy(garments.demo_config(settings))
    if settings.quick:
        shorten_validation(config, Path(settings.scratch) / 'run', images=12)
        config.train_cfg.max_steps = 3
        config.train_cfg.scenario.forget.update(images=6, batch_size=2)
        config.train_cfg.scenario.retain.update(images=6, batch_size=2)
        config.custom_hooks[0].sparsity.update(steps=1, held_out=1)
    return config


def cases(settings: Settings) -> list[Case]:
    """The demo against the recipe."""
    config = run_config(settings)
    return [
        Case(
            level='run',
            title=f'three tasks of Garments, {config.train_cfg.max_steps} steps each',
            reference=REFERENCE,
            variants={
                REFERENCE: partial(RecipeRun, config, settings),
                OURS: partial(OurRun, config, settings),
            },
            note='From the config to the last evaluation: building, loading images, filling the '
            'cache, choosing groups. mmforget also evaluates the loaded detector, for Drop, and '
            'writes checkpoints after each task; R0 does neither. Neither draws pictures. R0 takes '
            'the numbers of its authors, tuned for COCO; its AP is no verdict on the method. AP by '
            'the restricted protocol after the last task.',
        )
    ]
