"""Level ``scaling``: cost by number of tasks, by images, and by rank, in short runs."""

import copy
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmforget.benchmarks import garments
from mmforget.benchmarks.measurement import Case, Detail, Settings
from mmforget.benchmarks.run import OURS, REFERENCE, OurRun, RecipeRun
from mmforget.benchmarks.steps import ONE_GROUP, R0, TRUNK_CACHE, garments_variants
from mmforget.benchmarks.three_passes import shorten_validation
from mmforget.models.checkpoints import load_mmforget_weights
from mmforget.structures import ForgettingTask

# Enough for twenty tasks of one class, and some to keep.
CLASSES = tuple(f'class {number:02d}' for number in range(24))


class OurTasks(OurRun):
    """A run of ours that tells what its first and its last task cost, evaluation included."""

    def __call__(self) -> None:
        start = time.perf_counter()
        super().__call__()
        self.seconds = time.perf_counter() - start

    def run(self, runner: Runner) -> None:
        clock = TaskClock()
        runner.register_hook(clock)
        super().run(runner)
        self.of_tasks = clock.seconds

    def details(self) -> dict[str, Detail]:
        return _per_task(self.seconds, self.of_tasks)


class TaskClock(Hook):
    """Seconds from one task's evaluation to the next one's."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def before_forgetting_task(self, runner: Runner, task: ForgettingTask) -> None:
        if not self.seconds:
            self._start = time.perf_counter()

    def after_forgetting_evaluation(self, runner: Runner, task: ForgettingTask, row: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._start)
        self._start = now


class RecipeTasks(RecipeRun):
    """A run of the recipe that tells what a task costs."""

    def __call__(self) -> None:
        start = time.perf_counter()
        super().__call__()
        self.seconds = time.perf_counter() - start

    def details(self) -> dict[str, Detail]:
        return _per_task(self.seconds, self.of_tasks)


def _per_task(seconds: float, of_tasks: list[float]) -> dict[str, Detail]:
    return {
        's per task': round(seconds / len(of_tasks), 3),
        'first task s': round(of_tasks[0], 3),
        'last task s': round(of_tasks[-1], 3),
    }


def cases(settings: Settings) -> list[Case]:
    """All three scales."""
    return [*task_cases(settings), *image_cases(settings), *rank_cases(settings)]


def task_cases(settings: Settings) -> list[Case]:
    """Runs of 1 to 20 tasks; each task forgets one class in a few steps."""
    base = many_classes_config(settings)
    return [
        _runs(
            settings,
            _tasks(base, number),
            f'tasks: {number}',
            f'{base.train_cfg.max_steps} steps and one evaluation a task; one decoder group '
            'lives. Peak memory is that of the whole run. The last task alone tells whether '
            "cost grows: building and the loaded detector's evaluation are shared by all.",
        )
        for number in ((1, 2) if settings.quick else (1, 3, 7, 20))
    ]


def image_cases(settings: Settings) -> list[Case]:
    """Runs of one task with few and with many retain images, each seen twice."""
    found = []
    for images in (4, 8) if settings.quick else (48, 96, 192):
        config = copy.deepcopy(garments.demo_config(settings))
        config.train_cfg.scenario.tasks = config.train_cfg.scenario.tasks[:1]
        config.train_cfg.scenario.retain.images = images
        batch = 2 if settings.quick else config.train_cfg.scenario.retain.batch_size
        # Each image is seen twice.
        config.train_cfg.max_steps = 2 * images // batch
        config.custom_hooks[0].sparsity = _one_group()
        if settings.quick:
            config.train_cfg.scenario.forget.batch_size = 2
            config.train_cfg.scenario.retain.batch_size = 2
        shorten_validation(config, Path(settings.scratch) / 'scaling', images=12)
        note = (
            f'{config.train_cfg.max_steps} steps of '
            f'{config.train_cfg.scenario.retain.batch_size} retain images, each seen twice; 12 '
            'validation images.'
        )
        found.append(_runs(settings, config, f'retain images: {images}', note))
    return found


def rank_cases(settings: Settings) -> list[Case]:
    """One step of Garments with adapters of several ranks."""
    found = []
    for rank in (4, 8) if settings.quick else (4, 8, 16, 32, 64):
        every = garments_variants(settings, rank).all()
        found.append(
            Case(
                level='scaling',
                title=f'rank: {rank}',
                reference=R0,
                variants={name: every[name] for name in (R0, TRUNK_CACHE, ONE_GROUP)},
                note='One step of Garments.',
            )
        )
    return found


def _runs(settings: Settings, config: Config, title: str, note: str) -> Case:
    return Case(
        level='scaling',
        title=title,
        reference=REFERENCE,
        variants={
            REFERENCE: partial(RecipeTasks, config, settings),
            OURS: partial(OurTasks, config, settings),
        },
        note=note,
    )


def _one_group() -> dict:
    return {'type': 'ChosenGroups', 'groups': [garments.CHOSEN_GROUP]}


def _tasks(base: Config, number: int) -> Config:
    config = copy.deepcopy(base)
    config.train_cfg.scenario.tasks = [[name] for name in CLASSES[:number]]
    return config


def many_classes_config(settings: Settings) -> Config:
    """The demo's config on scenes whose objects were given 24 classes in turn."""
    config = copy.deepcopy(garments.demo_config(settings))
    folder = (Path(settings.scratch) / 'many_classes').resolve()
    folder.mkdir(parents=True, exist_ok=True)
    images = {'train': 60 if settings.quick else 400, 'val': 8 if settings.quick else 40}
    for split, loader in (('train', config.train_dataloader), ('val', config.val_dataloader)):
        dataset = loader.dataset
        path = folder / f'{split}_{images[split]}.json'
        if not path.is_file():
            source = Path(dataset.data_root) / 'annotations' / f'{split}.json'
            path.write_text(json.dumps(_relabelled(source, images[split])))
        dataset.pop('split')
        dataset.update(
            type='CocoDataset',
            metainfo={'classes': CLASSES},
            ann_file=str(path),
            data_prefix={'img': f'{split}/'},
        )
    config.val_evaluator.ann_file = str(folder / f'val_{images["val"]}.json')
    config.model.bbox_head.num_classes = len(CLASSES)
    config.load_from = str(_weights(config, folder))
    config.train_cfg.scenario.forget = {'images': 8, 'batch_size': 2, 'augmentations': 1}
    config.train_cfg.scenario.retain = {'images': 16, 'batch_size': 2, 'augmentations': 1}
    config.train_cfg.max_steps = 2 if settings.quick else 8
    config.custom_hooks[0].sparsity = _one_group()
    return config


def _relabelled(source: Path, images: int) -> dict:
    document = json.loads(source.read_text())
    document['images'] = document['images'][:images]
    kept = {image['id'] for image in document['images']}
    document['annotations'] = [
        {**a, 'category_id': 1 + a['id'] % len(CLASSES)}
        for a in document['annotations']
        if a['image_id'] in kept
    ]
    document['categories'] = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)]
    return document


def _weights(config: Config, folder: Path) -> Path:
    """The demo's detector with a head of more classes, which is random."""
    path = folder / 'detector.pth'
    if not path.is_file():
        model = copy.deepcopy(config.model)
        model.backbone.init_cfg = None
        torch.manual_seed(0)
        detector = MODELS.build(model)
        state = load_mmforget_weights(config.load_from)['state_dict']
        state = {name: value for name, value in state.items() if 'cls_branches' not in name}
        detector.load_state_dict(state, strict=False)
        torch.save({'state_dict': detector.state_dict(), 'meta': {}}, path)
    return path
