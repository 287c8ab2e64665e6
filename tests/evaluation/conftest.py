"""A small synthetic COCO data set, noisy detections on it, and the reference they are held to.

The reference is written with pycocotools only: each protocol the long way, on an annotation file
of its own.
"""

import contextlib
import copy
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# Not in alphabetical order, ids with gaps and not ascending: position, name and id all differ.
CATEGORIES = {'dog': 18, 'cat': 17, 'bus': 6, 'cup': 47, 'fork': 48, 'kite': 38, 'ghost': 90}
# No annotation at all, or only crowds: no ground truth to be measured on.
NEVER_SHOWN = 'ghost'
CROWDS_ONLY = 'kite'


@dataclass
class Data:
    """A COCO dict, its file, detections by image (labels, boxes, scores), category ids by name."""

    coco: dict
    ann_file: str
    classes: tuple[str, ...]
    detections: dict[int, dict[str, np.ndarray]]
    ids: dict[str, int]
    never_shown: str = NEVER_SHOWN
    crowds_only: str = CROWDS_ONLY

    def coco_detections(self) -> list[dict]:
        """The detections as COCO result dicts, written without the code under test."""
        ids = list(CATEGORIES.values())
        return [
            {
                'image_id': img_id,
                'category_id': ids[label],
                'bbox': [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                'score': float(score),
            }
            for img_id, found in self.detections.items()
            for label, (x1, y1, x2, y2), score in zip(
                found['labels'], found['bboxes'], found['scores'], strict=True
            )
        ]


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    rng = np.random.default_rng(0)
    names = list(CATEGORIES)
    # Each class is seen in a part of the images only.
    share = {'dog': 0.6, 'cat': 0.3, 'bus': 0.25, 'cup': 0.3, 'fork': 0.4, 'kite': 0.2}
    images, annotations, detections = [], [], {}
    for img_id in range(100, 130):
        images.append({'id': img_id, 'width': 400, 'height': 300, 'file_name': f'{img_id}.jpg'})
        labels, boxes, scores = [], [], []
        for label, name in enumerate(names):
            for _ in range(rng.integers(1, 4) if rng.random() < share.get(name, 0) else 0):
                w, h = rng.uniform(15, 150, 2)
                x, y = rng.uniform(0, 400 - w), rng.uniform(0, 300 - h)
                crowd = name == CROWDS_ONLY or rng.random() < 0.1
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': img_id,
                        'category_id': CATEGORIES[name],
                        'bbox': [x, y, w, h],
                        'area': w * h,
                        'iscrowd': int(crowd),
                    }
                )
                if rng.random() < 0.8:
                    jitter = rng.normal(0, 0.06, 4) * [w, h, w, h]
                    labels.append(label)
                    boxes.append(np.array([x, y, x + w, y + h]) + jitter)
                    scores.append(rng.uniform(0.3, 1))
            # False positives, also on images without the class.
            for _ in range(rng.poisson(0.5)):
                x, y, w, h = rng.uniform(10, 150, 4)
                labels.append(label)
                boxes.append(np.array([x, y, x + w, y + h]))
                # Coarse, so that scores are tied across images.
                scores.append(round(rng.uniform(0, 0.8), 1))
        detections[img_id] = {
            'labels': np.array(labels, dtype=np.int64),
            'bboxes': np.array(boxes, dtype=np.float32).reshape(-1, 4),
            'scores': np.array(scores, dtype=np.float32),
        }
    coco = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i, 'name': name} for name, i in CATEGORIES.items()],
    }
    path: Path = tmp_path_factory.mktemp('coco') / 'instances.json'
    path.write_text(json.dumps(coco))
    return Data(coco, str(path), tuple(names), detections, CATEGORIES)


def class_ap(coco: dict, detections: list[dict]) -> dict[str, tuple[float, float] | None]:
    """(AP, AP50) by class name from plain COCOeval with its defaults; None without objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(coco)
        gt.createIndex()
        coco_eval = COCOeval(gt, gt.loadRes(copy.deepcopy(detections)), 'bbox')
        coco_eval.evaluate()
        coco_eval.accumulate()
    precision = coco_eval.eval['precision']
    result = {}
    for k, cat_id in enumerate(coco_eval.params.catIds):
        values = precision[:, :, k, 0, -1]
        present = (values > -1).all()
        result[gt.cats[cat_id]['name']] = (
            (float(np.mean(values)), float(np.mean(values[0]))) if present else None
        )
    return result


def restrict_file(coco: dict, names: Iterable[str]) -> dict:
    """The annotation file of a set S: images that show S, annotations of S, all categories."""
    ids = {c['id'] for c in coco['categories'] if c['name'] in names}
    annotations = [a for a in coco['annotations'] if a['category_id'] in ids]
    shown = {a['image_id'] for a in annotations}
    return {
        'images': [image for image in coco['images'] if image['id'] in shown],
        'annotations': annotations,
        'categories': coco['categories'],
    }


def restricted_class_ap(
    coco: dict, detections: list[dict], names: Iterable[str]
) -> dict[str, tuple[float, float] | None]:
    """(AP, AP50) by class name on the physically restricted annotation file."""
    part = restrict_file(coco, names)
    shown = {image['id'] for image in part['images']}
    return class_ap(part, [d for d in detections if d['image_id'] in shown])


def mean_of(values: dict[str, tuple[float, float] | None], which: int = 0) -> float | None:
    """The mean over the classes with objects; ``which`` 0 for AP, 1 for AP50."""
    known = [value[which] for value in values.values() if value is not None]
    return float(np.mean(known)) if known else None


@pytest.fixture(scope='session')
def reference() -> SimpleNamespace:
    return SimpleNamespace(
        class_ap=class_ap,
        restrict_file=restrict_file,
        restricted_class_ap=restricted_class_ap,
        mean=mean_of,
    )
