"""A small COCO data set on disk: PNG images, a crowd, mixed images, empty images, a rare class."""

import json

import cv2
import numpy as np
import pytest

CLASSES = ('cat', 'dog', 'cow', 'owl')
# What each image holds; '*' marks a crowd annotation.
IMAGES = [
    ('cat',),
    ('cat', 'dog'),
    ('dog',),
    ('dog*',),
    ('cow', 'dog*'),
    (),
    ('cow', 'cat', 'cat'),
    ('cow',),
    ('cow',),
    ('cow', 'dog'),
    ('cow',),
    (),
]


def write_coco(folder, images=IMAGES, categories=CLASSES, start=1):
    """Writes the images and ``ann.json``; returns the latter's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(start)
    ids = {name: 10 * (i + 1) for i, name in enumerate(categories)}
    coco = {
        'images': [],
        'annotations': [],
        'categories': [{'id': i, 'name': name} for name, i in ids.items()],
    }
    for number, names in enumerate(images, start):
        file_name = f'{number:04d}.png'
        height, width = 40, 48 + 2 * (number % 3)
        image = pixels.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / file_name), image)
        coco['images'].append(
            {'id': number, 'file_name': file_name, 'height': height, 'width': width}
        )
        for place, name in enumerate(names):
            box = [4 + 10 * place, 5, 9, 12]
            coco['annotations'].append(
                {
                    'id': 100 * number + place,
                    'image_id': number,
                    'category_id': ids[name.rstrip('*')],
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': int(name.endswith('*')),
                }
            )
    path = folder / 'ann.json'
    path.write_text(json.dumps(coco))
    return path


def pipeline(*extra):
    """MMDetection's usual transforms, ``extra`` before the packing."""
    return [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        *extra,
        {'type': 'PackDetInputs'},
    ]


AUGMENT = (
    {'type': 'RandomFlip', 'prob': 0.5},
    {
        'type': 'RandomChoice',
        'transforms': [
            [{'type': 'Resize', 'scale': (size, size), 'keep_ratio': True}] for size in (32, 48, 64)
        ],
    },
    {'type': 'PhotoMetricDistortion'},
)


def build(folder, transforms=AUGMENT, images=IMAGES, categories=CLASSES, start=1, **kwargs):
    """Writes and builds a CocoDataset; further arguments go to it."""
    from mmdet.datasets import CocoDataset
    from mmengine.registry import DefaultScope

    ann_file = write_coco(folder, images, categories, start)
    kwargs.setdefault('metainfo', {'classes': CLASSES})
    # Other tests may have set it, or not.
    with DefaultScope.overwrite_default_scope('mmdet'):
        return CocoDataset(
            ann_file=str(ann_file),
            data_prefix={'img': str(folder)},
            pipeline=pipeline(*transforms),
            **kwargs,
        )


@pytest.fixture
def make_dataset(tmp_path):
    """Builds a CocoDataset in a folder of its own; arguments as ``build``."""

    def make(*args, folder='a', **kwargs):
        return build(tmp_path / folder, *args, **kwargs)

    return make


@pytest.fixture(scope='session')
def dataset(tmp_path_factory):
    """The data set with augmentations and its empty images; streams never change it."""
    return build(tmp_path_factory.mktemp('coco'))
