"""Masks are scored like boxes: against CocoMetric, on all images and on those of a set."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from pycocotools import mask as mask_utils

from mmforget.datasets.garments_scenes import CLASSES
from mmforget.evaluation import ForgettingCocoMetric
from mmforget.structures import ForgettingScenario

SCENARIO = ForgettingScenario.from_requests([['bag', 'sneaker'], ['dress']], CLASSES)


@pytest.fixture(scope='module')
def document(tiny_data):
    return json.loads((tiny_data / 'annotations' / 'val.json').read_text())


def predictions(document, hidden=(), seed=0):
    """The true objects with their masks shifted and scores drawn, without the hidden classes."""
    generator = np.random.default_rng(seed)
    names = {category['id']: category['name'] for category in document['categories']}
    samples = []
    for image in document['images']:
        own = [a for a in document['annotations'] if a['image_id'] == image['id']]
        own = [a for a in own if names[a['category_id']] not in hidden]
        masks = [
            np.roll(mask_utils.decode(a['segmentation']), generator.integers(4), 1) for a in own
        ]
        boxes = [[a['bbox'][0], a['bbox'][1], *np.add(a['bbox'][:2], a['bbox'][2:])] for a in own]
        samples.append(
            {
                'img_id': image['id'],
                'ori_shape': (image['height'], image['width']),
                'pred_instances': {
                    'bboxes': torch.tensor(boxes, dtype=torch.float).reshape(-1, 4),
                    'scores': torch.tensor(generator.random(len(own))),
                    'labels': torch.tensor(
                        [CLASSES.index(names[a['category_id']]) for a in own], dtype=torch.long
                    ),
                    'masks': torch.tensor(np.array(masks).reshape(len(own), 160, 160)).bool(),
                },
            }
        )
    return samples


def measure(metric, samples):
    metric.dataset_meta = {'classes': CLASSES}
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def make(cls, tiny_data, **options):
    ann_file = str(tiny_data / 'annotations' / 'val.json')
    return cls(ann_file=ann_file, metric=['bbox', 'segm'], **options)


@pytest.mark.parametrize('fast', [False, True])
def test_masks_are_scored_as_cocometric_scores_them(tiny_data, document, fast):
    if fast:
        pytest.importorskip('faster_coco_eval')
    samples = predictions(document)
    want = measure(make(CocoMetric, tiny_data), samples)
    metric = make(ForgettingCocoMetric, tiny_data, fast_eval=fast)
    metric.begin(SCENARIO)
    found = measure(metric, samples)
    assert 0.2 < want['coco/segm_mAP'] < want['coco/bbox_mAP'] == 1
    assert {k: v for k, v in found.items() if k in want} == want
    assert metric.base['segm']['full']['AP'] == pytest.approx(want['coco/segm_mAP'], abs=6e-4)


def test_a_forgotten_class_has_no_masks(tiny_data, document):
    metric = make(ForgettingCocoMetric, tiny_data)
    metric.begin(SCENARIO)
    measure(metric, predictions(document))
    before = metric.base['segm']['per_class']
    task = SCENARIO.tasks[0]
    metric.set_task(task)
    found = measure(metric, predictions(document, hidden=task.classes))
    segm = metric.last.segm
    assert found['coco/segm/AP_f'] == segm.full.AP_f == segm.restricted.AP_f == 0
    known = [before[name] for name in task.retained if before[name] is not None]
    assert segm.full.AP_r_relative == pytest.approx(1, abs=0.25)
    assert segm.full.H_ceiling > 0 and found['coco/segm/restricted/AP_r'] > 0
    for name, (ap_before, _) in segm.per_class.items():
        assert ap_before == before[name]
    assert known and metric.last.full.AP_r == pytest.approx(1)


def test_boxes_alone_have_no_segm(tiny_data, document):
    metric = ForgettingCocoMetric(ann_file=str(tiny_data / 'annotations' / 'val.json'))
    metric.begin(SCENARIO)
    measure(metric, predictions(document))
    metric.set_task(SCENARIO.tasks[0])
    found = measure(metric, predictions(document))
    assert metric.last.segm is None and 'segm' not in metric.base
    assert not any('segm' in key for key in found)
