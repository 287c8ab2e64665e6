"""What the data sections of an ordinary MMDetection config say, and how they are put to use."""

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.utils import is_abs

# These repeat, re-weight or mix what one inner data set gives.
_WRAPPERS = ('RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset')
# Transforms that give the same for an image every time and need no other image.
_STILL = (
    'LoadImageFromFile',
    'LoadAnnotations',
    'Resize',
    'FixScaleResize',
    'Pad',
    'PackDetInputs',
)


def type_name(config: Mapping[str, Any]) -> str:
    """The type of a config section without its scope: ``mmdet.CocoDataset`` -> ``CocoDataset``."""
    kind = config.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def unwrap_dataset(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The plain data set, or a ``ConcatDataset`` of plain ones, inside wrappers.

    Args:
        config: The config of a data set.
        key: Where it stands, for messages.

    Raises:
        ValueError: The wrapper is one that mmforget does not know, or there is none.
    """
    if not config or 'type' not in config:
        raise ValueError(
            f'{key} is {dict(config or {})!r}; expected the config of a data set, with a type.'
        )
    name = type_name(config)
    if name in _WRAPPERS:
        return unwrap_dataset(config['dataset'], f'{key}.dataset')
    if name == 'ConcatDataset':
        parts = config['datasets']
        inner = [unwrap_dataset(p, f'{key}.datasets[{i}]') for i, p in enumerate(parts)]
        # Its own pipeline-less copies: the parts carry everything else.
        return {**copy.deepcopy(dict(config)), 'datasets': inner}
    if 'dataset' in config or 'datasets' in config:
        raise ValueError(
            f'{key} is a {name}, which draws or mixes images in a way mmforget does not know; '
            f'expected a plain detection data set, ConcatDataset, or {", ".join(_WRAPPERS)} '
            f'around such. Put the inner data set into {key}, for example with --cfg-options.'
        )
    return copy.deepcopy(dict(config))


def parts_of(dataset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The plain data sets of an unwrapped config, themselves and not copies."""
    if type_name(dataset) == 'ConcatDataset':
        for part in dataset['datasets']:
            yield from parts_of(part)
    else:
        yield dataset


def class_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The label map of an unwrapped data set, without building it.

    Raises:
        ValueError: The data set's type is unknown, or it names no classes.
    """
    part = next(parts_of(dataset))
    kind = part['type']
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise ValueError(
            f'The data set type {kind!r} is not registered. If it is your own, name its module '
            'in custom_imports of the config.'
        )
    classes = cls._load_metainfo(part.get('metainfo')).get('classes')
    if not classes or isinstance(classes, str):
        raise ValueError(
            f'{cls.__name__} of the config names no classes (metainfo is '
            f'{part.get("metainfo")!r}); expected metainfo=dict(classes=(...)) with the '
            "detector's full label map."
        )
    return tuple(classes)


def annotation_path(part: Mapping[str, Any]) -> str | None:
    """The annotation file of a plain data set, joined with its root; ``None`` if not given."""
    file = part.get('ann_file')
    if not file or is_abs(file):
        return file or None
    return os.path.join(part.get('data_root') or '', file)


def missing_file(part: Mapping[str, Any]) -> str | None:
    """The annotation file of a plain data set if it is local and not there."""
    path = annotation_path(part)
    remote = part.get('backend_args') is not None or (path is not None and '://' in path)
    return path if path and not remote and not Path(path).exists() else None


def loads_masks(dataset: Mapping[str, Any]) -> bool:
    """Whether the pipeline of an unwrapped data set loads masks for the detector's loss."""
    return any(
        type_name(transform) == 'LoadAnnotations' and transform.get('with_mask', False)
        for part in parts_of(dataset)
        for transform in part.get('pipeline') or ()
    )


def training_flip(dataset: Mapping[str, Any]) -> dict[str, Any] | None:
    """The flip of a data set's pipeline or of a wrapper's, if the detector was trained with one.

    Args:
        dataset: The config, in its wrappers: those that mix images augment them, too.
    """
    for transform in dataset.get('pipeline') or ():
        if type_name(transform) == 'RandomFlip':
            return copy.deepcopy(dict(transform))
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets') or ()
    return next((flip for part in inner if (flip := training_flip(part)) is not None), None)


def still_pipeline(
    pipeline: list[Mapping[str, Any]] | None,
    masks: bool = False,
    flip: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]] | None:
    """A training pipeline without augmentation but flips, out of a validation pipeline.

    Boxes are loaded right after the image, so that they are resized with it, and the packed
    image keeps everything a loss may want.

    Args:
        pipeline: The validation pipeline.
        masks: Masks are loaded, too.
        flip: A transform that follows the loading, before anything is padded.

    Returns:
        ``None`` where the validation pipeline does something else than load, resize and pad.
    """
    names = [type_name(transform) for transform in pipeline or []]
    if not set(names) <= set(_STILL) or 'LoadImageFromFile' not in names:
        return None
    kept = [
        copy.deepcopy(dict(transform))
        for transform, name in zip(pipeline, names, strict=True)
        if name not in ('LoadAnnotations', 'PackDetInputs')
    ]
    at = [type_name(transform) for transform in kept].index('LoadImageFromFile') + 1
    load = {'type': 'LoadAnnotations', 'with_bbox': True}
    load = {**load, 'with_mask': True} if masks else load
    kept[at:at] = [load] if flip is None else [load, copy.deepcopy(dict(flip))]
    return [*kept, {'type': 'PackDetInputs'}]


def carry_instances(pipeline: list[dict[str, Any]]) -> None:
    """Lets a validation pipeline hand the ground truth to a metric that has no annotation file."""
    pack = pipeline[-1]
    keys = pack.get('meta_keys') or ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pack['meta_keys'] = (*(k for k in keys if k != 'instances'), 'instances')


def move_data_root(config: Config, root: str) -> None:
    """Rewrites the data root of all data sets, and the paths of evaluators below it.

    Args:
        config: Its ``*_dataloader`` and ``*_evaluator`` sections are changed in place; wrappers
            must have been taken off.
        root: The new root.

    Raises:
        ValueError: The data sets have no root or several ones.
    """
    parts = [
        part
        for loader in ('train_dataloader', 'val_dataloader')
        if config.get(loader)
        for part in parts_of(config[loader].dataset)
    ]
    roots = {_plain_root(part) for part in parts}
    if len(roots) != 1 or None in roots:
        listed = ', '.join(sorted(str(r) for r in roots))
        raise ValueError(
            f'--data-root replaces the one data_root of the config, but its data sets have: '
            f'{listed}. Give the paths one by one with --cfg-options, for example '
            'train_dataloader.dataset.data_root=...'
        )
    (old,) = roots
    for part in parts:
        part['data_root'] = root
    evaluators = config.get('val_evaluator') or []
    for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
        for key, value in evaluator.items():
            if isinstance(value, str) and value.startswith(f'{old}/'):
                evaluator[key] = os.path.join(root, value.removeprefix(f'{old}/').lstrip('/'))


def _plain_root(part: Mapping[str, Any]) -> str | None:
    root = part.get('data_root')
    if not root or is_abs(part.get('ann_file') or ''):
        return None
    return str(root).rstrip('/')
