"""Turns an ordinary MMDetection config into one that forgets: no work, no files."""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import HOOKS

from mmforget.apis.data_configs import (
    annotation_path,
    carry_instances,
    class_names,
    loads_masks,
    move_data_root,
    parts_of,
    still_pipeline,
    training_flip,
    type_name,
    unwrap_dataset,
)
from mmforget.apis.recipes import Recipe, Trial, recipe_for
from mmforget.apis.request import ForgettingRequest
from mmforget.engine import TrainableHook

BATCH_SIZE = 8
TRUNK_CACHE_MB = 1024
# The bound of the forget loss is reached at a score of e^-6.
_FORGOTTEN = 6.0
# Where adapters go in a detector without transformer blocks, and in one whose backbone alone has.
CONVOLUTIONAL = {'targets': 'conv', 'group_by': 'stage'}
BACKBONE_AND_HEAD = {'targets': ['ffn', 'head']}
OPTIMIZER = {
    'type': 'OptimWrapper',
    'optimizer': {'type': 'AdamW', 'lr': 7e-3, 'weight_decay': 1e-4},
    'clip_grad': {'max_norm': 1.0, 'norm_type': 2},
}
SCHEDULE = [{'type': 'CosineAnnealingLR', 'by_epoch': False}]
PICTURES = 'ForgettingPicturesHook'
# Why a hook of the user's config cannot stay.
CONFLICTS = {
    'EMAHook': 'it pairs parameters by position, which adapters shift',
    'MeanTeacherHook': 'it pairs parameters with a teacher, which adapters shift',
    'PipelineSwitchHook': 'it switches the pipeline by epoch, and there are none',
    'YOLOXModeSwitchHook': 'it switches the pipeline by epoch, and there are none',
    'EarlyStoppingHook': 'it would end the run inside a task',
    'ProfilerHook': 'it counts epochs, and there are none',
}


@dataclass
class ForgettingConfig:
    """A config that is ready to run.

    Attributes:
        config: For mmengine's Runner; work_dir is not set.
        classes: The detector's label map.
        notes: What of the user's config was changed or dropped beyond the recipe, for people.
    """

    config: Config
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def load_config(config: str | Path | Config) -> Config:
    """Loads a config: a path, ``mmdet::...``, a work dir with one dumped config, or a Config.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: A folder holds no config or several ones.
    """
    if isinstance(config, Config):
        return copy.deepcopy(config)
    name = str(config)
    if '::' in name:
        name = name if name.endswith('.py') else f'{name}.py'
        try:
            return get_config(name)
        except FileNotFoundError:
            raise FileNotFoundError(
                f'The config {name!r} does not exist; expected package::folder/name.py, for '
                "example 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'."
            ) from None
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob('*.py'))
        if len(found) != 1:
            listed = ', '.join(p.name for p in found) or 'none'
            raise ValueError(
                f'{name!r} is a folder; expected a config, or a work dir with exactly one dumped '
                f'config. It holds: {listed}.'
            )
        path = found[0]
    if not path.is_file():
        raise FileNotFoundError(
            f'The config {name!r} does not exist; expected a path to a file, or a name such as '
            "'mmdet::detr/detr_r50_8xb2-150e_coco.py'."
        )
    return Config.fromfile(path)


def build_forgetting_config(
    config: Config,
    checkpoint: str,
    request: ForgettingRequest,
    data_root: str | None = None,
    evaluate: bool = True,
    cfg_options: Mapping[str, Any] | None = None,
) -> ForgettingConfig:
    """Builds the forgetting config out of the config the detector was trained with.

    Model and data are the user's; the recipe is that of the Garments configs: GS-LoRA on the
    FFNs, AdamW with cosine decay, no augmentation but flips where the validation pipeline allows
    it (every image, or every variant of it, then passes the frozen trunk once).

    Args:
        config: The user's config; it is not changed.
        checkpoint: The trained detector's.
        request: What is to be forgotten.
        data_root: Replaces the data root of the config.
        evaluate: Keep the validation data, if there are any.
        cfg_options: Merged in by mmengine's rules: what says which data there are, and how they
            are measured, into the user's config; everything else into the forgetting config.

    Raises:
        ValueError: The data sections are missing or wrapped in a way that mmforget does not know,
            or a class is unknown.
    """
    config = copy.deepcopy(config)
    options = dict(cfg_options or {})
    early = {key: value for key, value in options.items() if _is_of_the_data(key)}
    config.merge_from_dict(early)
    if not config.get('train_dataloader') or not config.get('model'):
        raise ValueError(
            'The config has no model or no train_dataloader; expected the config that the '
            'detector was trained with.'
        )
    notes: list[str] = []
    recipe = recipe_for(config.model)
    flipped = _set_training_data(config, recipe, notes)
    # Of forget images one variant each, as in the configs.
    forget_variants = {'augmentations': 1} if flipped else {}
    retain_variants = {'augmentations': recipe.variants} if flipped else {}
    _set_validation(config, evaluate, notes)
    if data_root is not None:
        move_data_root(config, str(data_root))
    classes = class_names(config.train_dataloader.dataset)
    request.check_classes(classes)
    steps = request.steps or recipe.steps
    _set_hooks(config, recipe.trial, steps, notes)
    retain = request.retain_sampling(recipe.retain_images)
    _note_unseen(retain.get('images', 0), steps, config.train_dataloader.batch_size, notes)
    config.train_cfg = {
        'type': 'mmforget.ContinualForgettingLoop',
        'scenario': {
            'tasks': [list(task) for task in request.tasks],
            'forget': {**request.forget_sampling(recipe.forget_images), **forget_variants},
            'retain': {**retain, **retain_variants, 'recurring': recipe.recurring},
        },
        'max_steps': steps,
        'method': _method(recipe, config.model),
        'trunk_cache_mb': TRUNK_CACHE_MB,
    }
    config.optim_wrapper = copy.deepcopy(OPTIMIZER)
    config.param_scheduler = copy.deepcopy(SCHEDULE)
    config.randomness = {'seed': request.seed}
    config.load_from = str(checkpoint)
    config.resume = False
    config.launcher = 'none'
    config.default_scope = config.get('default_scope') or 'mmdet'
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg', 'auto_scale_lr'):
        config.pop(key, None)
    _import_mmforget(config)
    config.merge_from_dict({key: value for key, value in options.items() if key not in early})
    return ForgettingConfig(config, classes, notes)


def build_evaluation_config(
    config: Config, split: str = 'val', data_root: str | None = None
) -> ForgettingConfig:
    """Builds a config that only evaluates, with ``ForgettingCocoMetric``.

    Args:
        config: The user's config; it is not changed.
        split: ``'val'`` or ``'test'``: whose dataloader and evaluator are taken.
        data_root: Replaces the data root of the config.

    Raises:
        ValueError: The config has no data of this split.
    """
    if split not in ('val', 'test'):
        raise ValueError(f"split is {split!r}; expected 'val' or 'test'.")
    config = copy.deepcopy(config)
    for part in ('dataloader', 'evaluator'):
        config[f'val_{part}'] = config.get(f'{split}_{part}')
    notes: list[str] = []
    _set_validation(config, True, notes)
    if config.get('val_dataloader') is None:
        raise ValueError(
            f'The config has no {split}_dataloader and {split}_evaluator, so there is nothing to '
            'evaluate on.'
        )
    for key in list(config.keys()):
        if key.startswith(('train_', 'test_', 'optim_', 'param_scheduler', 'auto_scale')):
            config.pop(key)
    if data_root is not None:
        move_data_root(config, str(data_root))
    config.custom_hooks = []
    _rest_checkpoint_hook(config)
    config.resume, config.load_from, config.launcher = False, None, 'none'
    config.default_scope = config.get('default_scope') or 'mmdet'
    _import_mmforget(config)
    return ForgettingConfig(config, class_names(config.val_dataloader.dataset), notes)


def name_run(config: Config, prefix: str) -> None:
    """Gives a run names of its own, for mmengine keeps some objects by name in a process.

    MMDetection names every visualizer alike: a second run would write into the first one's folder.
    """
    config.experiment_name = f'{prefix}_{time.time_ns()}'
    if config.get('visualizer'):
        config.visualizer.name = config.experiment_name


def rest_trackers(config: Config) -> None:
    """Leaves the Visualizer's backends out, for a run that must leave nothing anywhere."""
    if config.get('visualizer'):
        config.visualizer.vis_backends = []


def drop_validation(config: Config) -> None:
    """Leaves the validation data out of a config; nothing is measured then."""
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        config.pop(key, None)


def _is_of_the_data(key: str) -> bool:
    """Whether an option speaks of the user's data, metric or model, and not of the recipe."""
    first, _, rest = key.partition('.')
    of_dataset = first.endswith('_dataloader') and rest.partition('.')[0] == 'dataset'
    return first in ('val_evaluator', 'model') or (of_dataset and '.pipeline' not in rest)


def class_loss(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the loss that tells a detector's classes apart; empty if none is named."""
    head = model.get('bbox_head') or model.get('panoptic_head')
    if head is None:
        head = (model.get('roi_head') or {}).get('bbox_head')
    if isinstance(head, (list, tuple)):  # A cascade's, all alike.
        head = head[-1]
    return (head or {}).get('loss_cls') or {}


def _method(recipe: Recipe, model: Mapping[str, Any]) -> dict[str, Any]:
    """GS-LoRA's objective; what the forget loss counts, and its bound.

    A focal loss is a share alpha of the logarithm where the score is near zero.
    """
    loss = class_loss(model)
    share = loss.get('alpha', 0.25) if loss and type_name(loss) == 'FocalLoss' else 1.0
    method = {
        'type': 'mmforget.GSLoRA',
        'forget_weight': recipe.forget_weight,
        'bound': _FORGOTTEN * share * loss.get('loss_weight', 1.0),
        'true_class_only': True,
    }
    return {**method, 'bound_each': True} if recipe.bound_each else method


def _set_training_data(config: Config, recipe: Recipe, notes: list[str]) -> bool:
    """The plain data set, drawn by the loop, without augmentation where that can be had.

    Returns:
        Whether flips are the only augmentation.
    """
    loader = config.train_dataloader
    flip = training_flip(loader.get('dataset') or {}) if recipe.variants > 1 else None
    wrapper = type_name(loader.dataset) if loader.get('dataset') else ''
    loader.dataset = unwrap_dataset(loader.get('dataset'), 'train_dataloader.dataset')
    if type_name(loader.dataset) != wrapper:
        notes.append(f'{wrapper} was taken off the training data: the streams draw the images.')
    loader.batch_size = min(BATCH_SIZE, loader.get('batch_size') or BATCH_SIZE)
    loader.sampler = {'type': 'DefaultSampler', 'shuffle': True}
    loader.pop('batch_sampler', None)
    still = still_pipeline(_validation_pipeline(config), loads_masks(loader.dataset), flip)
    if still is None and wrapper == 'MultiImageMixDataset':
        raise ValueError(
            'train_dataloader.dataset is a MultiImageMixDataset, whose transforms mix images of '
            'both streams, and there is no validation pipeline of load, resize and pad to take '
            'instead. Give train_dataloader.dataset a plain data set whose pipeline works on '
            'single images.'
        )
    if still is None:
        notes.append(
            'The training pipeline was kept with its augmentation, for there is no validation '
            'pipeline that only loads, resizes and pads.'
        )
        return False
    for part in parts_of(loader.dataset):
        part['pipeline'] = copy.deepcopy(still)
    return flip is not None


def _note_unseen(images: int, steps: int, batch_size: int, notes: list[str]) -> None:
    """Small batches, as of detectors that were trained on several GPUs, make small tasks."""
    seen = steps * batch_size
    if seen < images:
        notes.append(
            f'{steps} steps of {batch_size} retain images see {seen} of the {images}; '
            f'train_dataloader.batch_size={BATCH_SIZE}, or more steps, would see more of them.'
        )


def _validation_pipeline(config: Config) -> list[Mapping[str, Any]] | None:
    dataset = (config.get('val_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and ('dataset' in dataset or dataset.get('datasets')):
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    return dataset.get('pipeline')


def _set_validation(config: Config, evaluate: bool, notes: list[str]) -> None:
    """Puts ForgettingCocoMetric in the place of the user's metric."""
    if not evaluate or not config.get('val_dataloader') or not config.get('val_evaluator'):
        if evaluate:
            notes.append('The config has no validation data: nothing is measured.')
        drop_validation(config)
        return
    loader = config.val_dataloader
    loader.dataset = unwrap_dataset(loader.dataset, 'val_dataloader.dataset')
    evaluators = config.val_evaluator
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else list(evaluators)
    names = [type_name(evaluator) for evaluator in evaluators]
    metric: dict[str, Any] = {}
    for evaluator, name in zip(evaluators, names, strict=True):
        if name in ('CocoMetric', 'ForgettingCocoMetric'):
            own = ('type', 'format_only', 'outfile_prefix', 'scenario', 'task', 'base')
            metric = {k: v for k, v in evaluator.items() if k not in own}
            break
    else:
        notes.append(
            f'{", ".join(names)} gave way to COCO AP on the same images, by which forgetting is '
            'measured.'
        )
    asked = metric.get('metric', 'bbox')
    metric['metric'] = ['bbox', 'segm'] if 'segm' in asked else 'bbox'
    parts = list(parts_of(loader.dataset))
    if not metric.get('ann_file') and len(parts) == 1:
        path = annotation_path(parts[0])
        if path and path.endswith('.json'):
            metric['ann_file'] = path
    if not metric.get('ann_file') and len(parts) > 1:
        # Their image ids may be the same, and the metric would take two images for one.
        notes.append(
            'The validation data come from several data sets without one annotation file: nothing '
            'is measured. Join them in one COCO file to measure.'
        )
        drop_validation(config)
        return
    if not metric.get('ann_file'):
        for part in parts:
            carry_instances(part['pipeline'])
    config.val_evaluator = {'type': 'mmforget.ForgettingCocoMetric', **metric}
    config.val_cfg = {'type': 'ValLoop'}


def _set_hooks(config: Config, trial: Trial, steps: int, notes: list[str]) -> None:
    """Adds the adapters and the pictures; leaves out whatever would disturb them."""
    kept = []
    for hook in config.get('custom_hooks') or []:
        name = type_name(hook)
        cls = HOOKS.get(hook['type']) if isinstance(hook['type'], str) else hook['type']
        if isinstance(cls, type) and issubclass(cls, TrainableHook):
            notes.append(f'{name} of the config gave way to group-sparse LoRA of rank 8.')
        elif name == PICTURES:
            continue  # Added again below.
        elif name in CONFLICTS:
            notes.append(f'{name} of the config was dropped: {CONFLICTS[name]}.')
        else:
            kept.append(hook)
    adapters = {
        'type': 'mmforget.GroupSparseLoRAHook',
        'rank': 8,
        'targets': 'ffn',
        'sparsity': _sparsity(trial, steps, notes),
    }
    config.custom_hooks = [*kept, adapters, {'type': f'mmforget.{PICTURES}'}]
    _rest_checkpoint_hook(config)
    logger = config.default_hooks.get('logger')
    if logger:
        logger['interval'] = min(logger.get('interval', 10), 10)


def _rest_checkpoint_hook(config: Config) -> None:
    """The loop writes its own checkpoints; best ones would be chosen on evaluation data."""
    hooks = config.get('default_hooks') or {}
    config.default_hooks = {**hooks, 'checkpoint': {'type': 'CheckpointHook', 'interval': -1}}


def _sparsity(trial: Trial, steps: int, notes: list[str]) -> dict[str, Any] | None:
    """Trials of single groups, no longer than a task is."""
    length = min(trial.steps, steps - trial.held_out)
    if length < 1:
        notes.append(f'With {steps} steps there is no room for trials, so every group lives.')
        return None
    return {'type': 'GroupTrial', **asdict(trial), 'steps': length}


def _import_mmforget(config: Config) -> None:
    """So that the dumped config runs under MMDetection's own scripts."""
    imports = config.get('custom_imports') or {}
    modules = imports.get('imports') or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    if 'mmforget' not in modules:
        modules.append('mmforget')
    config.custom_imports = {
        'imports': modules,
        'allow_failed_imports': imports.get('allow_failed_imports', False),
    }
