"""Taps against MMDetection's own losses, its own assigner, and focal loss by hand."""

import copy

import pytest
import torch
from mmdet.models import SOLO, CornerNet, GroundingDINO
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from tiny_families import tiny_family
from torch import nn
from torch.nn.functional import softplus
from torchvision.ops import box_iou, sigmoid_focal_loss

from mmforget.adapters import inject
from mmforget.taps import DeformableDETRTap, DETRTap, Stream, StreamOptions, build_tap


@pytest.fixture(scope='module')
def deformable(build_tiny):
    return build_tiny()


def streams(first=StreamOptions(), second=StreamOptions()):  # noqa: B008
    return {'forget': Stream(slice(0, 2), first), 'retain': Stream(slice(2, 4), second)}


def corners(boxes, sample):
    height, width = sample.img_shape
    return bbox_cxcywh_to_xyxy(boxes) * boxes.new_tensor([width, height, width, height])


def labels_of(out, index, classes=10):
    """One-hot targets of all queries of an image, by its matches."""
    target = out.logits.new_zeros(out.logits.shape[1], classes)
    query, object_ = out.matches[index].T
    target[query, out.targets[index].labels[object_]] = 1
    return target


def focal(out, index):
    """Focal loss of each query of an image, summed over classes."""
    return sigmoid_focal_loss(out.logits[index], labels_of(out, index), 0.25, 2.0).sum(1)


def matched(out, index):
    found = torch.zeros(out.logits.shape[1], dtype=torch.bool)
    found[out.matches[index][:, 0]] = True
    return found


def half_awake(model):
    """The detector itself in training mode, all modules inside in eval mode: dropout sleeps."""
    model.eval().training = True
    return model


def mmdet_loss(model, inputs, samples):
    """MMDetection's loss; in eval mode Deformable DETR has none."""
    assert model.training
    return model.loss(inputs, samples)


@pytest.mark.parametrize('auxiliary', [False, True])
@pytest.mark.parametrize(
    'family',
    ['DeformableDETR', 'plain boxes', 'two-stage', 'DETR', 'ConditionalDETR', 'DABDETR'],
)
def test_losses_are_mmdets_own(build_tiny, preprocess, family, auxiliary):
    """Per stream, as if the detector had seen that stream's images alone; fields and shapes."""
    model = half_awake(build_tiny(tiny_family(family)))
    inputs, samples = preprocess(model)
    options = StreamOptions(auxiliary=auxiliary)
    outputs = build_tap(model).forward(inputs, samples, streams(options, options))
    assert list(outputs) == ['forget', 'retain']
    for name, part in (('forget', slice(0, 2)), ('retain', slice(2, 4))):
        out = outputs[name]
        want = mmdet_loss(model, inputs[part], copy.deepcopy(samples[part]))
        if not auxiliary:
            want = {k: v for k, v in want.items() if not k.startswith('d')}
        assert out.losses.keys() == want.keys()
        assert len(want) == 3 * (1 + auxiliary + (family == 'two-stage'))
        for key, value in want.items():
            assert value > 0
            assert out.losses[key].item() == pytest.approx(value.item(), rel=1e-5), key
        assert out.logits.shape == (2, 12, 11 if family == 'DETR' else 10)
        assert out.boxes.shape == (2, 12, 4)
        assert out.embeddings.shape == (2, 12, model.embed_dims)
        assert [t.bboxes.shape[0] for t in out.targets] == [len(m) for m in out.matches]


@pytest.mark.parametrize('auxiliary', [False, True])
@pytest.mark.parametrize('family', ['DeformableDETR', 'two-stage'])
def test_matches_are_the_assigners_of_the_last_layer(build_tiny, preprocess, family, auxiliary):
    model = half_awake(build_tiny(tiny_family(family)))
    inputs, samples = preprocess(model)
    options = StreamOptions(auxiliary=auxiliary)
    out = build_tap(model).forward(inputs, samples, streams(options, options))['retain']
    for index, sample in enumerate(samples[2:]):
        result = model.bbox_head.assigner.assign(
            pred_instances=InstanceData(
                scores=out.logits[index], bboxes=corners(out.boxes[index], sample)
            ),
            gt_instances=sample.gt_instances,
            img_meta=sample.metainfo,
        )
        pairs = {(q, g - 1) for q, g in enumerate(result.gt_inds.tolist()) if g > 0}
        assert len(pairs) == len(sample.gt_instances)
        assert {tuple(pair) for pair in out.matches[index].tolist()} == pairs


def test_last_layer_is_what_the_detector_predicts_from(deformable, preprocess):
    """Logits and boxes are those behind ``predict``; embeddings give the logits by the head."""
    inputs, samples = preprocess(deformable)
    with torch.no_grad():
        out = build_tap(deformable).forward(inputs, samples, streams())['forget']
        found = deformable.predict(inputs, copy.deepcopy(samples), rescale=False)
        branch = deformable.bbox_head.cls_branches[-1]
        torch.testing.assert_close(branch(out.embeddings), out.logits)
    for index in range(2):
        best = out.logits[index].sigmoid().flatten().sort(descending=True).values[:20]
        torch.testing.assert_close(found[index].pred_instances.scores, best)


def test_class_loss_is_focal_loss_by_hand(deformable, preprocess):
    """The yardstick of the next tests: all queries, divided by the objects."""
    inputs, samples = preprocess(deformable)
    out = build_tap(deformable).forward(inputs, samples, streams())['forget']
    objects = sum(len(t) for t in out.targets)
    want = 2 * sum(focal(out, i).sum() for i in range(2)) / objects
    assert out.losses['loss_cls'].item() == pytest.approx(want.item(), rel=1e-5)


def test_matched_only_counts_matched_queries(deformable, preprocess):
    """In its stream alone, and in the class loss alone."""
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)
    outputs = tap.forward(inputs, samples, streams(StreamOptions(matched_only=True)))
    plain = tap.forward(inputs, samples, streams())
    out = outputs['forget']
    objects = sum(len(t) for t in out.targets)
    want = 2 * sum(focal(out, i)[matched(out, i)].sum() for i in range(2)) / objects
    assert out.losses['loss_cls'].item() == pytest.approx(want.item(), rel=1e-5)
    assert out.losses['loss_cls'] < plain['forget'].losses['loss_cls']
    for key in ('loss_bbox', 'loss_iou'):
        assert torch.equal(out.losses[key], plain['forget'].losses[key])
    for key, value in plain['retain'].losses.items():
        assert torch.equal(outputs['retain'].losses[key], value)


def test_true_class_only_counts_one_score_a_match(deformable, preprocess):
    """Naming a forgotten object after a retained class must not pay."""
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)
    outputs = tap.forward(inputs, samples, streams(StreamOptions(true_class_only=True)))
    plain = tap.forward(inputs, samples, streams())
    out = outputs['forget']
    objects = sum(len(t) for t in out.targets)
    per_class = [sigmoid_focal_loss(out.logits[i], labels_of(out, i), 0.25, 2.0) for i in range(2)]
    want = sum(
        per_class[i][query, out.targets[i].labels[item]]
        for i in range(2)
        for query, item in out.matches[i].tolist()
    )
    assert out.losses['loss_cls'].item() == pytest.approx(2 * want.item() / objects, rel=1e-5)
    assert torch.equal(out.losses['loss_bbox'], plain['forget'].losses['loss_bbox'])
    assert torch.equal(outputs['retain'].losses['loss_cls'], plain['retain'].losses['loss_cls'])


@pytest.mark.parametrize('option', ['matched_only', 'true_class_only'])
def test_a_bound_holds_for_each_match(deformable, preprocess, option):
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)
    plain = tap.forward(inputs, samples, streams(StreamOptions(**{option: True})))
    out = plain['forget']
    objects = sum(len(t) for t in out.targets)
    each = []
    for i in range(2):
        per_class = 2 * sigmoid_focal_loss(out.logits[i], labels_of(out, i), 0.25, 2.0)
        for query, item in out.matches[i].tolist():
            true = out.targets[i].labels[item]
            counted = per_class[query] if option == 'matched_only' else per_class[query, true]
            each.append(counted.sum())
    bound = float(torch.stack(each).median())
    want = sum(min(float(loss), bound) for loss in each) / objects
    outputs = tap.forward(inputs, samples, streams(StreamOptions(**{option: True}, bound=bound)))
    found = outputs['forget'].losses['loss_cls']
    assert found.item() == pytest.approx(want, rel=1e-5)
    assert found < out.losses['loss_cls']
    assert torch.equal(outputs['retain'].losses['loss_cls'], plain['retain'].losses['loss_cls'])
    far = tap.forward(inputs, samples, streams(StreamOptions(**{option: True}, bound=1e6)))[
        'forget'
    ]
    torch.testing.assert_close(far.losses['loss_cls'], out.losses['loss_cls'])


def test_true_class_of_a_softmax_counts_against_the_background(build_tiny, preprocess):
    detector = build_tiny(tiny_family('DETR'))
    inputs, samples = preprocess(detector)
    tap = build_tap(detector)
    out = tap.forward(inputs, samples, streams(StreamOptions(true_class_only=True)))['forget']
    want = [
        softplus(out.logits[i, query, -1] - out.logits[i, query, out.targets[i].labels[item]])
        for i in range(2)
        for query, item in out.matches[i].tolist()
    ]
    want = sum(want) / len(want)
    assert out.losses['loss_cls'].item() == pytest.approx(want.item(), rel=1e-5)


def test_log_odds_are_those_of_the_matches(deformable, preprocess):
    inputs, samples = preprocess(deformable)
    options = StreamOptions(true_class_only=True, log_odds=True)
    out = build_tap(deformable).forward(inputs, samples, streams(options))['forget']
    own = [
        out.logits[i, query, out.targets[i].labels[item]]
        for i in range(2)
        for query, item in out.matches[i].tolist()
    ]
    assert out.losses['loss_cls'].item() == pytest.approx(-torch.stack(own).mean().item(), rel=1e-5)


def test_matched_queries_as_background(deformable, preprocess):
    """No class is any query's; boxes are learnt as before, and objects matched by their own."""
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)
    outputs = tap.forward(inputs, samples, streams(StreamOptions(background=True)))
    plain = tap.forward(inputs, samples, streams())
    out = outputs['forget']
    objects = sum(len(t) for t in out.targets)
    want = 2 * sigmoid_focal_loss(out.logits, torch.zeros_like(out.logits), 0.25, 2.0).sum()
    assert out.losses['loss_cls'].item() == pytest.approx(want.item() / objects, rel=1e-5)
    for name in ('loss_bbox', 'loss_iou'):
        assert torch.equal(out.losses[name], plain['forget'].losses[name])
    assert all(map(torch.equal, out.matches, plain['forget'].matches))
    assert torch.equal(outputs['retain'].losses['loss_cls'], plain['retain'].losses['loss_cls'])


def test_matched_queries_of_a_softmax_as_background(build_tiny, preprocess):
    detector = build_tiny(tiny_family('DETR'))
    inputs, samples = preprocess(detector)
    tap = build_tap(detector)
    out = tap.forward(inputs, samples, streams(StreamOptions(background=True)))['forget']
    background = out.logits.shape[-1] - 1
    objects = sum(len(t) for t in out.targets)
    assert background == 10 and not out.sigmoid
    names = -out.logits.log_softmax(-1)[..., background]
    cls_weight = detector.bbox_head.loss_cls.class_weight[background]
    bg_weight = detector.bbox_head.bg_cls_weight
    factor = objects + (out.logits[..., 0].numel() - objects) * bg_weight
    want = detector.bbox_head.loss_cls.loss_weight * cls_weight * names.sum() / factor
    assert out.losses['loss_cls'].item() == pytest.approx(want.item(), rel=1e-4)


def test_unmatched_queries_over_ignored_boxes_are_left_out(deformable, preprocess):
    """A matched query keeps its class loss even over an ignored box."""
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)
    plain = tap.forward(inputs, samples, streams())['forget']
    is_matched = matched(plain, 1)
    boxes = corners(plain.boxes[1].detach(), samples[1])
    chosen = torch.stack([boxes[~is_matched][0], boxes[is_matched][0]])
    samples[1].ignored_instances = InstanceData(bboxes=chosen, labels=torch.zeros(2).long())
    out = tap.forward(inputs, samples, streams())['forget']
    over = (box_iou(boxes, chosen) > 0.5).any(1)
    assert (over & is_matched).any() and (over & ~is_matched).any() and not over.all()
    objects = sum(len(t) for t in out.targets)
    want = 2 * (focal(out, 0).sum() + focal(out, 1)[is_matched | ~over].sum()) / objects
    assert out.losses['loss_cls'].item() == pytest.approx(want.item(), rel=1e-5)
    assert out.losses['loss_cls'] < plain.losses['loss_cls']
    assert torch.equal(out.losses['loss_bbox'], plain.losses['loss_bbox'])


def test_an_image_without_objects(deformable, preprocess):
    inputs, samples = preprocess(deformable)
    for sample in samples[:2]:
        sample.gt_instances = sample.gt_instances[:0]
    for options in (StreamOptions(), StreamOptions(matched_only=True)):
        out = build_tap(deformable).forward(inputs, samples, streams(options))['forget']
        assert [tuple(m.shape) for m in out.matches] == [(0, 2), (0, 2)]
        assert all(torch.isfinite(value) for value in out.losses.values())
        assert (out.losses['loss_cls'] == 0) == options.matched_only


def test_the_head_is_left_as_it_was(deformable, preprocess, monkeypatch):
    """Also after an exception inside the loss."""
    head = deformable.bbox_head
    inputs, samples = preprocess(deformable)
    tap = build_tap(deformable)

    def untouched():
        return 'assign' not in vars(head.assigner) and 'get_targets' not in vars(head)

    assert untouched()
    tap.forward(inputs, samples, streams())
    assert untouched()

    def broken(*args, **kwargs):
        assert not untouched()
        raise ZeroDivisionError

    monkeypatch.setattr(type(head.loss_cls), 'forward', broken)
    with pytest.raises(ZeroDivisionError):
        tap.forward(inputs, samples, streams())
    assert untouched()


@pytest.mark.parametrize(
    ('targets', 'features', 'encoder'),
    [('ffn', False, True), (r'decoder\..*ffn.*', False, False), (None, True, True)],
    ids=['all blocks', 'decoder only', 'nothing frozen'],
)
def test_no_gradient_below_the_lowest_trained_layer(
    build_tiny, preprocess, targets, features, encoder
):
    model = build_tiny()
    if targets is not None:
        inject(model, targets, 2, 1.0, 0)
    inputs, samples = preprocess(model)
    seen = {}
    model.neck.register_forward_hook(lambda m, i, o: seen.update(neck=o[0].requires_grad))
    model.encoder.register_forward_hook(lambda m, i, o: seen.update(encoder=o.requires_grad))
    out = build_tap(model).forward(inputs, samples, streams())
    assert seen == {'neck': features, 'encoder': encoder}
    sum(out['forget'].losses.values()).backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(n.startswith('backbone') for n in learning) == features
    assert any(n.startswith('encoder') for n in learning) == encoder
    assert any(n.startswith('decoder') for n in learning)


def test_the_tap_of_a_family(build_tiny, deformable):
    assert type(build_tap(deformable)) is DeformableDETRTap
    assert type(build_tap(build_tiny(tiny_family('DETR')))) is DETRTap
    wanted = {'losses', 'logits', 'boxes', 'embeddings', 'matches', 'targets'}
    assert DETRTap.fields == DeformableDETRTap.fields == wanted


def bare(detector):
    """A detector without its modules: the refusal comes before they are looked at."""
    model = detector.__new__(detector)
    nn.Module.__init__(model)
    return model


def test_detectors_that_cannot_be_read():
    with pytest.raises(TypeError, match='GroundingDINO has a forward of its own.*Deformable DETR'):
        build_tap(bare(GroundingDINO))
    with pytest.raises(TypeError, match='CornerNet has no bbox_head with a loss_cls.*TAPS'):
        build_tap(bare(CornerNet))
    with pytest.raises(TypeError, match='cannot read SOLO yet.*DeformableDETR.*TAPS'):
        build_tap(bare(SOLO))
