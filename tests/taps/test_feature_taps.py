"""Dense, two-stage and mask detectors: losses are MMDetection's, wherever the trunk is cut."""

import copy
from contextlib import contextmanager

import pytest
import torch
from tiny_detectors import PLAIN, base_model
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from mmforget.adapters import inject
from mmforget.engine.step import ForgettingStep
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import (
    DenseTap,
    Stream,
    StreamOptions,
    TrunkCache,
    TwoStageTap,
    build_tap,
)
from mmforget.trainable import GroupSparseLoRA

HALVES = {'forget': slice(0, 2), 'retain': slice(2, 4)}


@pytest.fixture(scope='module', params=PLAIN)
def detector(request, build_tiny):
    return build_tiny(base_model(request.param))


@pytest.fixture
def data(detector, preprocess, tiny_batch):
    inputs, samples = preprocess(detector)
    for sample in samples:  # Mask heads want masks; of the boxes will do.
        sample.gt_instances.masks = masks_of(sample)
    return inputs, samples


def masks_of(sample):
    from mmdet.structures.mask import BitmapMasks

    height, width = sample.batch_input_shape
    masks = torch.zeros(len(sample.gt_instances), height, width, dtype=torch.uint8)
    boxes = getattr(sample.gt_instances.bboxes, 'tensor', sample.gt_instances.bboxes)
    for mask, box in zip(masks, boxes.long(), strict=True):
        mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
    return BitmapMasks(masks.numpy(), height, width)


def streams(**options):
    chosen = StreamOptions(**options)
    return {name: Stream(part, chosen) for name, part in HALVES.items()}


def run(model, cache, data, tap=None, **options):
    """Losses of both streams, equal draws of samples."""
    inputs, samples = data
    tap = tap or build_tap(model, cache)
    torch.manual_seed(1)
    outputs = tap.forward(inputs, copy.deepcopy(samples), streams(**options))
    return {f'{n} {k}': v for n, out in outputs.items() for k, v in out.losses.items()}


def gradients(model, losses):
    model.zero_grad()
    sum(losses.values()).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@contextmanager
def calls(modules):
    """How often each module is called."""
    counts = dict.fromkeys(modules, 0)

    def counting(name):
        def hook(*_):
            counts[name] += 1

        return hook

    handles = [m.register_forward_hook(counting(n)) for n, m in modules.items()]
    yield counts
    for handle in handles:
        handle.remove()


def test_losses_are_mmdets_own(detector, data):
    inputs, samples = data
    found = run(detector, None, data)
    torch.manual_seed(1)
    for name, part in HALVES.items():
        own = detector.loss(inputs[part], copy.deepcopy(samples[part]))
        for key, value in own.items():
            if 'loss' in key:
                levels = value if isinstance(value, list) else [value]
                want = sum(level.mean() for level in levels)
                torch.testing.assert_close(found.pop(f'{name} {key}'), want)
    assert not found


def targets_of(model):
    return 'ffn' if any('attn' in n for n, _ in model.named_modules()) else 'conv'


def prepared(detector, keep):
    """With adapters awake on all layers whose path begins with one of ``keep``."""
    model = copy.deepcopy(detector)
    from mmforget.adapters import find_targets

    names = [n for n in find_targets(model, targets_of(model)) if n.startswith(tuple(keep))]
    for adapter in inject(model, names, 2, 2.0).values():
        nn.init.normal_(adapter.lora_B, std=0.05)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for module in build_tap(model).trunk():
        module.eval()
    return model


CUTS = {
    'FasterRCNN': ['roi_head', 'neck', 'backbone.layer5', 'backbone.layer3.1'],
    'FCOS': ['bbox_head', 'neck', 'backbone.layer7'],
    'MaskRCNN': ['backbone.stages.3', 'backbone.stages.2.blocks.2'],
}


@pytest.mark.parametrize('cached', [False, True])
@pytest.mark.parametrize('cut', range(4))
def test_losses_and_gradients_are_those_of_the_whole_network(detector, data, cut, cached):
    """First and second time, the second one from the cache; frozen parts run once."""
    cuts = CUTS[type(detector).__name__]
    if cut >= len(cuts):
        pytest.skip('has fewer cuts')
    model = prepared(detector, cuts[cut : cut + 1])
    for module in model.modules():  # Random depth has its draws; they are not the matter here.
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 0.0
    with torch.no_grad():
        want = run(copy.deepcopy(model), None, data)
    assert want
    cache = TrunkCache(2**28) if cached else None
    tap = build_tap(model, cache)
    lowest = next(m for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    grads, first = [], 0
    with calls({'stem': lowest}) as counts:
        for _ in range(2):
            losses = run(model, cache, data, tap)
            for key, value in want.items():
                torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-5)
            grads.append(gradients(model, losses))
            first = first or counts['stem']
        if cached:
            assert counts['stem'] == first, 'nothing below the cut is computed again'
            assert len(cache) == 4
    whole = cuts[cut].startswith(('roi_head', 'bbox_head'))
    assert tap.frozen_stages()[-1].startswith('features' if whole else 'below ' + cuts[cut])
    for name in grads[0]:
        torch.testing.assert_close(grads[1][name], grads[0][name], rtol=1e-3, atol=1e-5)
    assert grads[0]


@pytest.mark.parametrize(('keep', 'masks'), [('roi_head.bbox_head', False), ('neck', True)])
def test_masks_are_left_out_where_nothing_can_change_them(
    build_tiny, preprocess, tiny_batch, keep, masks
):
    """All other losses are MMDetection's; the mask head is there again afterwards."""
    model = prepared(build_tiny(base_model('mask-rcnn_mobilenetv2')), [keep])
    inputs, samples = preprocess(model)
    for sample in samples:
        sample.gt_instances.masks = masks_of(sample)
    head = model.roi_head.mask_head
    with calls({'mask head': head}) as counts:
        found = run(model, None, (inputs, samples))
    assert counts['mask head'] == (2 if masks else 0)
    assert model.roi_head.mask_head is head
    torch.manual_seed(1)
    for name, part in HALVES.items():
        own = model.loss(inputs[part], copy.deepcopy(samples[part]))
        for key, value in own.items():
            if 'loss' in key and (masks or key != 'loss_mask'):
                levels = value if isinstance(value, list) else [value]
                want = sum(level.mean() for level in levels)
                torch.testing.assert_close(found.pop(f'{name} {key}'), want)
    assert not found


def test_masks_stay_where_their_head_shares_what_moves(build_tiny):
    """As in C4 detectors, whose box and mask heads stand on one shared head."""
    model = prepared(build_tiny(base_model('mask-rcnn_mobilenetv2')), ['roi_head.bbox_head'])
    head = model.roi_head.mask_head
    with build_tap(model).idle_branch():
        assert model.roi_head.mask_head is None
    model.roi_head.shared_head = nn.Linear(2, 2)
    with build_tap(model).idle_branch():
        assert model.roi_head.mask_head is head


def test_matched_class_loss_of_a_two_stage_detector(build_tiny, preprocess):
    """The mean over positive samples of -log p, by the scores that the head gave."""
    model = build_tiny(base_model('faster-rcnn_mobilenetv2'))
    seen = {}

    class Spy(nn.Module):
        def __init__(self, loss):
            super().__init__()
            self.loss = loss
            self.use_sigmoid, self.custom_activation = False, False

        def forward(self, scores, labels, *args, **kwargs):
            seen.update(scores=scores, labels=labels)
            return self.loss(scores, labels, *args, **kwargs)

    head = model.roi_head.bbox_head
    head.loss_cls = Spy(head.loss_cls)
    found = run(model, None, preprocess(model), matched_only=True)
    positive = seen['labels'] < 10
    assert positive.any()
    want = cross_entropy(seen['scores'][positive], seen['labels'][positive])
    torch.testing.assert_close(found['retain loss_cls'], want)
    found = run(model, None, preprocess(model), true_class_only=True)
    scores, labels = seen['scores'], seen['labels']
    true = scores[positive, labels[positive]]
    want = softplus(scores[positive, -1] - true).mean()
    torch.testing.assert_close(found['retain loss_cls'], want)


def test_scores_of_another_kind_cannot_be_told_apart(build_tiny):
    config = base_model('faster-rcnn_mobilenetv2')
    config['roi_head']['bbox_head']['loss_cls'] = {'type': 'SeesawLoss', 'num_classes': 10}
    tap = build_tap(build_tiny(config))
    tap.check(StreamOptions())
    with pytest.raises(TypeError, match='SeesawLoss of FasterRCNN.*Leave both out'):
        tap.check(StreamOptions(true_class_only=True))


def test_logits_of_a_dense_detector_are_those_of_its_head(build_tiny, preprocess):
    model = build_tiny(base_model('fcos_mobilenetv2'))
    inputs, samples = preprocess(model)
    tap = build_tap(model)
    assert isinstance(tap, DenseTap) and 'logits' in tap.fields
    with torch.no_grad():
        out = tap.forward(inputs, samples, streams())['retain']
        levels = model.bbox_head(model.extract_feat(inputs))[0]
    want = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)[2:]
    torch.testing.assert_close(out.logits, want)


def test_two_stage_gives_no_logits(build_tiny):
    tap = build_tap(build_tiny(base_model('faster-rcnn_mobilenetv2')))
    assert isinstance(tap, TwoStageTap) and tap.fields == {'losses', 'targets'}


def test_detections_are_the_same_with_remembered_features(detector, data):
    inputs, samples = data
    cache = TrunkCache(2**28)
    with torch.no_grad():
        want = detector.predict(inputs, copy.deepcopy(samples), rescale=False)
        for _ in range(2):
            with build_tap(detector, cache).remembering(4):
                found = detector.predict(inputs, copy.deepcopy(samples), rescale=False)
            for mine, other in zip(found, want, strict=True):
                torch.testing.assert_close(mine.pred_instances.scores, other.pred_instances.scores)
                torch.testing.assert_close(mine.pred_instances.bboxes, other.pred_instances.bboxes)
    assert len(cache) == 4
    assert 'extract_feat' not in vars(detector) and 'predict' not in vars(detector)


def test_a_step_forgets(detector, tiny_batch):
    """Bounded loss up, retain loss down, adapters alone moved, and what is folded stays."""
    model = copy.deepcopy(detector)
    part = GroupSparseLoRA(4, 4.0, targets=targets_of(model), group_by='stage')
    part.inject(model, ForgettingTask(0, ('bag',), ('coat',), ()), 0)
    # Far above what a random detector has.
    method = GSLoRA(1.0, 100.0, true_class_only=True)
    step = ForgettingStep(model, build_tap(model, TrunkCache(2**28)), method, part).train()
    batch = tiny_batch(4)
    for sample in batch['data_samples']:
        height, width = sample.img_shape
        sample.set_metainfo({'batch_input_shape': (height, width)})
        sample.gt_instances.masks = masks_of(sample)
    halves = {n: {k: v[part_] for k, v in batch.items()} for n, part_ in HALVES.items()}
    optimizer = torch.optim.AdamW(part.parameters(), lr=3e-3)
    before = {n: p.clone() for n, p in model.named_parameters() if 'lora' not in n}
    history = []
    for number in range(6):
        torch.manual_seed(number)
        losses = step(copy.deepcopy(halves), number)
        history.append(float(losses['forget_cls']))
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        optimizer.step()
    assert history[-1] > history[0]
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if 'lora' not in n)
