"""faster-coco-eval against pycocotools: the same numbers, every array of them."""

import copy
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from mmdet.datasets.api_wrappers import COCO, COCOeval
from pycocotools.cocoeval import COCOeval as PlainCOCOeval

from mmforget.evaluation import ForgettingCocoMetric, coco_metric
from mmforget.evaluation.fast_coco_eval import FastCOCOeval, fast_eval_installed
from mmforget.evaluation.restricted_coco import (
    detection_index,
    evaluate_detections,
    images_with,
    quiet,
    restrict,
)
from mmforget.structures import ForgettingScenario

installed = pytest.mark.skipif(
    not fast_eval_installed(), reason='needs faster-coco-eval (pip install mmforget[fast-eval])'
)
# The last bits: pycocotools adds the smallest float to a divisor.
TOLERANCE = {'rtol': 0, 'atol': 1e-12}


def matched(data, evaluator, detections=None, **arguments):
    with quiet():
        gt = COCO(data.ann_file)
    if detections is None:
        detections = data.coco_detections()
    dt = detection_index(gt, copy.deepcopy(detections))
    img_ids = [image['id'] for image in data.coco['images']]
    return evaluate_detections(
        gt, dt, list(data.ids.values()), img_ids, evaluator=evaluator, **arguments
    )


def assert_equal(fast, plain):
    assert fast.params.catIds == plain.params.catIds
    assert fast.params.imgIds == plain.params.imgIds
    assert fast.params.maxDets == plain.params.maxDets
    for name in ('precision', 'recall', 'scores'):
        assert np.shape(fast.eval[name]) == np.shape(plain.eval[name])
        np.testing.assert_allclose(fast.eval[name], plain.eval[name], **TOLERANCE)


@installed
@pytest.mark.parametrize(
    'arguments',
    [
        {},
        {'max_dets': (2, 1, 3)},
        {'max_dets': (100, 300, 1000)},
        {'iou_thrs': np.array([0.3, 0.75])},
    ],
    ids=str,
)
def test_all_numbers_are_those_of_pycocotools(data, arguments):
    fast = matched(data, FastCOCOeval, **arguments)
    plain = matched(data, PlainCOCOeval, **arguments)
    assert (plain.eval['precision'] > 0).any()
    assert_equal(fast, plain)
    with quiet():
        fast.summarize()
        plain.summarize()
    np.testing.assert_allclose(fast.stats, plain.stats, **TOLERANCE)


@installed
def test_restricted_numbers_are_those_of_pycocotools(data):
    fast, plain = matched(data, FastCOCOeval), matched(data, COCOeval)
    for names in (['cat', 'cup'], ['dog'], ['bus', 'fork', 'ghost']):
        ids = [data.ids[name] for name in names]
        images = images_with(plain.cocoGt, ids, plain.params.imgIds)
        assert 0 < len(images) < len(data.coco['images'])
        part = restrict(fast, ids, images)
        assert isinstance(part, FastCOCOeval)
        assert_equal(part, restrict(plain, ids, images))


@installed
def test_without_detections(data):
    assert_equal(matched(data, FastCOCOeval, []), matched(data, COCOeval, []))


@installed
def test_forgetting_scores_are_equal(data, tmp_path):
    """Through the metric, detections and annotations in files; the default takes the fast one."""
    scenario = ForgettingScenario.from_requests([['cat', 'cup'], ['bus']], data.classes)
    ann_file = tmp_path / 'with_segmentation.json'
    document = copy.deepcopy(data.coco)
    for annotation in document['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    ann_file.write_text(json.dumps(document))
    found = []
    for fast in (None, False):
        metric = ForgettingCocoMetric(ann_file=str(ann_file), fast_eval=fast)
        metric.dataset_meta = {'classes': data.classes}
        assert metric._evaluator() is (COCOeval if fast is False else FastCOCOeval)
        metric.begin(scenario)
        scores = []
        for task in (None, *scenario.tasks):
            metric.set_task(task)
            for image in data.coco['images']:
                sample = {
                    'img_id': image['id'],
                    'ori_shape': (image['height'], image['width']),
                    'pred_instances': {
                        key: torch.from_numpy(value)
                        for key, value in data.detections[image['id']].items()
                    },
                }
                metric.process({}, [sample])
            scores.append(metric.evaluate(len(data.coco['images'])))
        last = asdict(metric.last)
        found.append((scores, metric.base['per_class'], last['full'], last['restricted']))
    (fast_scores, *fast_parts), (plain_scores, *plain_parts) = found
    for fast, plain in zip([*fast_scores, *fast_parts], [*plain_scores, *plain_parts], strict=True):
        assert fast.keys() == plain.keys()
        for key, value in plain.items():
            assert fast[key] == (value if value is None else pytest.approx(value, abs=1e-12)), key


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(coco_metric, 'fast_eval_installed', lambda: False)
    assert not ForgettingCocoMetric().fast_eval
    with pytest.raises(ImportError, match='fast_eval=True.*pip install faster-coco-eval'):
        ForgettingCocoMetric(fast_eval=True)
