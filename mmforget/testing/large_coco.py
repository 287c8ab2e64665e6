"""An annotation file of COCO train2017's size, to time what must not grow with the data."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

CLASSES: tuple[str, ...] = CocoDataset.METAINFO['classes']
_SIZES = ((640, 480), (480, 640))
# Of COCO's images this share shows no object.
_EMPTY = 0.01


def write_large_coco(
    folder: str | Path,
    images: int = 118_000,
    boxes: int = 860_000,
    seed: int = 0,
    image_files: bool = True,
) -> Path:
    """Writes ``annotations.json`` and ``images/``: COCO's 80 classes, common and rare ones.

    The k-th most common class has a share of boxes in proportion to 1 / k, and some images hold
    many objects, as in COCO. There are no segmentations. Each image file is a link to one of two
    grey pictures, so that all can be read.

    Args:
        folder: Made if needed.
        images: Number of images.
        boxes: Number of annotations.
        seed: Of the draws.
        image_files: Whether to write the images, too.

    Returns:
        The annotation file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 2, images)
    names = [f'{number:012d}.png' for number in range(1, images + 1)]
    if image_files:
        _write_images(folder / 'images', names, sizes)
    document = {
        'images': [
            {
                'id': number,
                'file_name': name,
                'width': _SIZES[size][0],
                'height': _SIZES[size][1],
            }
            for number, (name, size) in enumerate(zip(names, sizes, strict=True), 1)
        ],
        'annotations': _annotations(rng, sizes, boxes),
        'categories': [{'id': _category_id(i), 'name': name} for i, name in enumerate(CLASSES)],
    }
    path = folder / 'annotations.json'
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(document))
    os.replace(temporary, path)
    return path


def _annotations(rng: np.random.Generator, sizes: np.ndarray, boxes: int) -> list[dict]:
    frequency = 1 / np.arange(1, len(CLASSES) + 1)
    labels = rng.choice(len(CLASSES), boxes, p=rng.permutation(frequency) / frequency.sum())
    crowded = rng.gamma(1.2, size=len(sizes)) * (rng.random(len(sizes)) >= _EMPTY)
    of_image = np.sort(rng.choice(len(sizes), boxes, p=crowded / crowded.sum()))
    extents = np.array(_SIZES)[sizes[of_image]]
    wide = np.exp(rng.uniform(np.log(0.02), 0, (boxes, 2))) * extents
    corner = rng.random((boxes, 2)) * (extents - wide)
    rectangles = np.concatenate([corner, wide], axis=1).round(2)
    crowds = rng.random(boxes) < 0.012
    return [
        {
            'id': number,
            'image_id': image + 1,
            'category_id': _category_id(label),
            'bbox': box,
            'area': box[2] * box[3],
            'iscrowd': int(crowd),
        }
        for number, (image, label, box, crowd) in enumerate(
            zip(of_image.tolist(), labels.tolist(), rectangles.tolist(), crowds, strict=True), 1
        )
    ]


def _category_id(label: int) -> int:
    """With gaps, as COCO's ids have them."""
    return 1 + label + label // 10


def _write_images(folder: Path, names: list[str], sizes: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    for number, (width, height) in enumerate(_SIZES):
        cv2.imwrite(str(folder / f'size_{number}.png'), np.full((height, width, 3), 127, np.uint8))
    for name, size in zip(names, sizes, strict=True):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(f'size_{size}.png')
