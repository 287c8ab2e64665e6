import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO

from mmforget.evaluation.restricted_coco import (
    category_ap,
    detection_index,
    evaluate_detections,
    images_with,
    per_class_ap,
    restrict,
    restricted_ap,
)


@pytest.fixture(scope='module')
def coco_gt(data):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(data.ann_file)


@pytest.fixture(scope='module')
def coco_eval(data, coco_gt):
    coco_dt = detection_index(coco_gt, data.coco_detections())
    return evaluate_detections(coco_gt, coco_dt, list(data.ids.values()), coco_gt.getImgIds())


def assert_same(found, expected, ids, names):
    for name in names:
        pair = expected[name] or (None, None)
        for value, reference in zip((found.ap, found.ap50), pair, strict=True):
            value = value[ids[name]]
            assert (value is None) == (reference is None), name
            assert value is None or abs(value - reference) < 1e-12, name


def test_full_is_plain_cocoeval(data, reference, coco_eval):
    expected = reference.class_ap(data.coco, data.coco_detections())
    assert expected[data.never_shown] is None and expected[data.crowds_only] is None
    assert 0 < expected['dog'][0] < expected['dog'][1] < 1
    assert_same(per_class_ap(coco_eval), expected, data.ids, data.classes)


@pytest.mark.parametrize(
    'names',
    [
        ['cat'],
        ['cat', 'cup'],
        ['bus', 'kite'],
        ['dog', 'fork', 'ghost'],
        ['kite'],
        ['ghost'],
        ['dog', 'cat', 'bus', 'cup', 'fork', 'kite', 'ghost'],
    ],
    ids='+'.join,
)
def test_restricted_is_plain_cocoeval_on_the_restricted_file(data, reference, coco_eval, names):
    part = reference.restrict_file(data.coco, names)
    shown = images_with(coco_eval.cocoGt, [data.ids[n] for n in names], range(1000))
    assert shown == sorted(image['id'] for image in part['images'])
    found = restricted_ap(coco_eval, [data.ids[n] for n in names])
    assert set(found.ap) == {data.ids[n] for n in names}
    expected = (
        reference.restricted_class_ap(data.coco, data.coco_detections(), names)
        if part['images']
        else dict.fromkeys(names)
    )
    assert_same(found, expected, data.ids, names)


def test_restriction_is_an_upper_bound_and_matters(data, coco_eval):
    full = per_class_ap(coco_eval).ap[data.ids['bus']]
    assert restricted_ap(coco_eval, [data.ids['bus']]).ap[data.ids['bus']] > full


def test_restriction_leaves_the_evaluation_as_it_was(coco_eval):
    before = coco_eval.eval['precision'].copy()
    categories, images = list(coco_eval.params.catIds), list(coco_eval.params.imgIds)
    restrict(coco_eval, [6, 17], images[3:9])
    assert coco_eval.params.catIds == categories and coco_eval.params.imgIds == images
    coco_eval_again = restrict(coco_eval, categories, images)
    np.testing.assert_array_equal(coco_eval.eval['precision'], before)
    np.testing.assert_array_equal(coco_eval_again.eval['precision'][..., 0, 0], before[..., 0, -1])


def test_ap_counts_100_detections_whatever_else_is_evaluated():
    # One image, 150 false positives before the one true one: AP is 0 at 100, above 0 at 1000.
    box = [10.0, 10.0, 50.0, 50.0]
    coco = {
        'images': [{'id': 1, 'width': 400, 'height': 300}],
        'categories': [{'id': 3, 'name': 'dog'}],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 3, 'bbox': box, 'area': 2500, 'iscrowd': 0}
        ],
    }
    found = [
        {'image_id': 1, 'category_id': 3, 'bbox': [200, 200, 9, 9], 'score': 0.9 - i / 1000}
        for i in range(150)
    ] + [{'image_id': 1, 'category_id': 3, 'bbox': box, 'score': 0.1}]
    gt = COCO()
    gt.dataset = coco
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
    dt = detection_index(gt, found)
    wide = evaluate_detections(gt, dt, [3], [1], max_dets=(100, 300, 1000))
    assert category_ap(wide) == {3: 0.0}
    assert restricted_ap(wide, [3]).ap == {3: 0.0}
    # Without 100 among them, the largest number is taken.
    other = evaluate_detections(gt, dt, [3], [1], max_dets=(1, 10, 300))
    assert category_ap(other)[3] > 0
    assert restricted_ap(other, [3]).ap == category_ap(other)


def test_no_detections_is_zero(data, coco_gt):
    coco_dt = detection_index(coco_gt, [])
    coco_eval = evaluate_detections(coco_gt, coco_dt, list(data.ids.values()), coco_gt.getImgIds())
    expected = {
        i: None if name in (data.never_shown, data.crowds_only) else 0.0
        for name, i in data.ids.items()
    }
    assert per_class_ap(coco_eval).ap == per_class_ap(coco_eval).ap50 == expected
    assert restricted_ap(coco_eval, [17, 90]).ap == {17: 0.0, 90: None}


def test_ap50_is_unknown_without_its_threshold(data, coco_gt):
    coco_dt = detection_index(coco_gt, data.coco_detections())
    images = coco_gt.getImgIds()
    coco_eval = evaluate_detections(coco_gt, coco_dt, [18], images, iou_thrs=[0.6, 0.75])
    found = per_class_ap(coco_eval)
    assert found.ap50 == {18: None} and found.ap[18] > 0
    assert restricted_ap(coco_eval, [18]).ap50 == {18: None}


def test_nothing_is_printed(data, coco_gt, capsys):
    coco_dt = detection_index(coco_gt, data.coco_detections())
    restricted_ap(evaluate_detections(coco_gt, coco_dt, [18, 17], coco_gt.getImgIds()), [18])
    assert capsys.readouterr().out == ''
