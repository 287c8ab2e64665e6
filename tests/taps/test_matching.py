"""All images' targets at once, against MMDetection's own, image by image."""

import pytest
import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmforget.taps import Stream, StreamOptions, build_tap, matching
from mmforget.taps.matching import can_match_at_once, targets_at_once
from mmforget.testing import tiny_detector

CLASSES, QUERIES = 10, 12
L1 = {'type': 'BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'}
FOCAL = {'type': 'FocalLossCost', 'weight': 2.0}
GIOU = {'type': 'IoUCost', 'iou_mode': 'giou', 'weight': 2.0}
COSTS = {
    'Deformable DETR': [FOCAL, L1, GIOU],
    'DETR': [{'type': 'ClassificationCost'}, L1, GIOU],
    'corners': [FOCAL, {'type': 'BBoxL1Cost'}, {'type': 'IoUCost', 'iou_mode': 'iou'}],
    'boxes alone': [GIOU],
}


def make_head(costs, **changes):
    detector = tiny_detector()
    config = {**detector['bbox_head'], 'num_pred_layer': 1, **changes}
    assigner = {'type': 'HungarianAssigner', 'match_costs': costs}
    return MODELS.build({**config, 'train_cfg': {'assigner': assigner}})


def case(counts, shapes, seed=0):
    """Random predictions and objects for images of the given numbers of objects and shapes."""
    torch.manual_seed(seed)
    instances = []
    for count, (height, width) in zip(counts, shapes, strict=True):
        corner = torch.rand(count, 2) * 0.6
        boxes = torch.cat([corner, corner + 0.05 + 0.3 * torch.rand(count, 2)], dim=1)
        boxes = boxes * torch.tensor([width, height, width, height])
        labels = torch.randint(CLASSES, (count,))
        instances.append(InstanceData(bboxes=boxes, labels=labels))
    scores = list(torch.randn(len(counts), QUERIES, CLASSES))
    boxes = list(torch.rand(len(counts), QUERIES, 4) * 0.5 + 0.1)
    return scores, boxes, instances, [{'img_shape': shape} for shape in shapes]


@pytest.mark.parametrize('costs', COSTS.values(), ids=COSTS)
@pytest.mark.parametrize(
    ('counts', 'shapes'),
    [
        ([3, 1, 5], [(64, 64)] * 3),
        ([2, 4], [(48, 96), (120, 31)]),
        ([0, 2, 0], [(64, 64), (32, 80), (64, 64)]),
        ([0, 0], [(64, 64)] * 2),
        ([QUERIES + 4, 1], [(64, 64)] * 2),
    ],
    ids=['alike', 'shapes', 'some empty', 'all empty', 'more objects than queries'],
)
def test_targets_are_mmdets(costs, counts, shapes):
    head = make_head(costs)
    arguments = case(counts, shapes)
    assert can_match_at_once(head, arguments[2])
    assigned = []
    assign = head.assigner.assign
    head.assigner.assign = lambda **kwargs: assigned.append(assign(**kwargs)) or assigned[-1]
    want = head.get_targets(*arguments)
    got, gt_inds = targets_at_once(head, *arguments)
    assert len(assigned) == len(gt_inds) == len(counts)
    for result, own in zip(assigned, gt_inds, strict=True):
        assert torch.equal(own, result.gt_inds)
    assert got[4:] == want[4:] == (sum(min(c, QUERIES) for c in counts), got[5])
    for mine, theirs in zip(got[:4], want[:4], strict=True):
        assert [t.dtype for t in mine] == [t.dtype for t in theirs]
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('most', [1, 2 * CLASSES * QUERIES, 10**6])
def test_parts_of_the_batch_give_what_the_whole_gives(monkeypatch, most):
    """One image at a time, some, or all."""
    monkeypatch.setattr(matching, '_MOST_COSTS', most)
    head = make_head(COSTS['Deformable DETR'])
    arguments = case([3, 0, 2, 4, 1], [(64, 64), (32, 80), (64, 64), (50, 60), (64, 64)])
    want, (got, _) = head.get_targets(*arguments), targets_at_once(head, *arguments)
    assert got[4:] == want[4:]
    for mine, theirs in zip(got[:4], want[:4], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_costs_that_are_not_finite_are_refused_as_mmdet_refuses_them():
    head = make_head(COSTS['Deformable DETR'])
    arguments = case([2, 1], [(64, 64)] * 2)
    arguments[0][1][3] = float('nan')
    with pytest.raises(ValueError, match='invalid numeric entries'):
        head.get_targets(*arguments)
    with pytest.raises(ValueError, match='invalid numeric entries'):
        targets_at_once(head, *arguments)


class OwnAssigner(HungarianAssigner):
    """Might assign in another way."""


def test_what_might_differ_is_left_to_mmdet():
    instances = case([1], [(64, 64)])[2]
    masks = {'type': 'FocalLossCost', 'binary_input': True}
    assert not can_match_at_once(make_head([masks]), instances)
    assert not can_match_at_once(make_head([FOCAL, {'type': 'DiceCost'}]), instances)
    head = make_head([FOCAL])
    assert can_match_at_once(head, instances)
    boxes = InstanceData(bboxes=HorizontalBoxes(instances[0].bboxes), labels=instances[0].labels)
    assert not can_match_at_once(head, [boxes])
    head.assigner = OwnAssigner([FOCAL])
    assert not can_match_at_once(head, instances)


def test_a_tap_asks_such_an_assigner_image_by_image(build_tiny, preprocess):
    """And reads the same matching, losses and targets out of it."""
    found = []
    for own in (False, True):
        model = build_tiny()
        if own:
            head = model.bbox_head
            costs = tiny_detector()['train_cfg']['assigner']['match_costs']
            head.assigner = OwnAssigner(costs)
        inputs, samples = preprocess(model)
        whole = Stream(slice(0, 4), StreamOptions(true_class_only=True))
        found.append(build_tap(model).forward(inputs, samples, {'all': whole})['all'])
    assert [m.tolist() for m in found[0].matches] == [m.tolist() for m in found[1].matches]
    for name, value in found[0].losses.items():
        assert value.item() == pytest.approx(found[1].losses[name].item(), rel=1e-6)


class OwnHead(type(make_head([FOCAL]))):
    """Has targets of its own."""

    def _get_targets_single(self, *args):
        return super()._get_targets_single(*args)


def test_a_head_with_targets_of_its_own_is_left_to_mmdet():
    head = make_head([FOCAL])
    head.__class__ = OwnHead
    assert not can_match_at_once(head, [])
