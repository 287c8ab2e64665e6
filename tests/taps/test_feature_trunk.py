"""Backbones are cut below the first trained module, whatever they are."""

import pytest
import torch
from torch import nn

from mmforget.adapters import inject
from mmforget.taps.execution_order import execution_order, first_trained, modules_before
from mmforget.taps.feature_trunk import FeatureTrunk
from mmforget.taps.stages import StageMemory
from mmforget.taps.trunk_batch import TrunkBatch
from mmforget.taps.trunk_cache import TrunkCache


class Residual(nn.Module):
    """Changes what its convolutions give in place, as MMDetection's blocks do."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        out = self.second(self.first(x).sub_(0.1).relu_())
        return torch.relu_(out.add_(x))


class Backbone(nn.Module):
    """Declares its parts in another order than they run in; gives two of three maps."""

    def __init__(self):
        super().__init__()
        self.third, self.second, self.first = Residual(4), Residual(4), Residual(4)
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.place = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x):
        x = self.first(self.stem(x) + self.place)
        y = self.second(x)
        return (x, self.third(y))


class Detector(nn.Module):
    with_neck = False

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def extract_feat(self, inputs):
        return self.backbone(inputs)


def make(backbone, names):
    torch.manual_seed(0)
    detector = Detector(backbone)
    for adapter in inject(detector, names, 1, 1.0).values():
        nn.init.normal_(adapter.lora_B)
    cache = TrunkCache(2**24)
    memory = StageMemory(cache, lambda: trunk.stages())
    trunk = FeatureTrunk(detector, memory)
    return detector, trunk, cache


def batch_of(cache, images, priority=None):
    class Sample(dict):
        img_shape = tuple(images.shape[-2:])

    shapes = [tuple(images.shape[-2:])] * len(images)
    return TrunkBatch.of(cache, images, shapes, [Sample() for _ in images])


def test_order_is_that_of_the_calls():
    backbone = Backbone()
    order = execution_order([('backbone', backbone)], lambda: backbone(torch.zeros(1, 3, 8, 8)))
    starts = sorted((n for n in order if n.count('.') == 1), key=lambda n: order[n].begin)
    assert starts == [f'backbone.{n}' for n in ('stem', 'first', 'second', 'third')]
    assert order['backbone'].begin < order['backbone.stem'].begin
    assert order['backbone'].end > order['backbone.third'].end


def test_what_runs_before_the_first_trained_module():
    detector = Detector(Backbone()).requires_grad_(False)
    parts = [('backbone', detector.backbone)]
    order = execution_order(parts, lambda: detector.backbone(torch.zeros(1, 3, 8, 8)))
    assert first_trained(parts, order) is None
    detector.backbone.second.second.requires_grad_(True)
    name, moment = first_trained(parts, order)
    assert name == 'backbone.second.second'
    assert list(modules_before(parts, order, moment)) == [
        'backbone.stem',
        'backbone.first',
        'backbone.second.first',
    ]
    detector.backbone.place.requires_grad_(True)
    name, moment = first_trained(parts, order)
    assert name == 'backbone' and not modules_before(parts, order, moment)


@pytest.mark.parametrize(
    ('trained', 'kept'),
    [
        ('backbone.third.first', 2),  # the first map, and the second block's output
        ('backbone.second.second', 2),  # the first map, and what the ReLU was applied to
        ('backbone.second.first', 1),
    ],
)
def test_features_and_gradients_from_what_is_kept(trained, kept):
    detector, trunk, cache = make(Backbone(), [trained])
    images = torch.randn(3, 3, 10, 12)
    want = detector.extract_feat(images)
    sum(m.square().sum() for m in want).backward()
    grads = [p.grad.clone() for p in detector.parameters() if p.grad is not None]
    for _ in range(2):
        detector.zero_grad()
        entries = trunk.above_cut(batch_of(cache, images))
        found = [torch.cat([entry[level] for entry in entries]) for level in ('0', '1')]
        for mine, other in zip(found, want, strict=True):
            torch.testing.assert_close(mine, other)
        sum(m.square().sum() for m in found).backward()
        mine = [p.grad for p in detector.parameters() if p.grad is not None]
        for one, other in zip(mine, grads, strict=True):
            torch.testing.assert_close(one, other)
    assert len(cache) == 3
    assert cache.bytes == 3 * kept * 4 * 5 * 6 * 4


def test_the_stage_is_told_by_what_decides_its_output():
    detector, trunk, cache = make(Backbone(), ['backbone.third.first'])
    stage = next(iter(trunk.stages()))
    assert stage == 'below backbone.third.first'
    weights = {id(tensor) for tensor in trunk.stages()[stage].weights()}
    assert id(detector.backbone.place) in weights
    assert id(detector.backbone.first.second.weight) in weights
    assert id(detector.backbone.third.first.weight) not in weights
    images = torch.randn(2, 3, 8, 8)
    trunk.above_cut(batch_of(cache, images))
    with torch.no_grad():
        detector.backbone.place.add_(1)
    entries = trunk.above_cut(batch_of(cache, images))
    want = detector.extract_feat(images)
    torch.testing.assert_close(torch.cat([e['1'] for e in entries]), want[1])


class Mixing(nn.Module):
    """Lays the images of a batch along the second dimension."""

    def forward(self, x):
        return x.flatten(2).permute(2, 0, 1)


class MixedBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.project = Mixing(), nn.Linear(3, 4)

    def forward(self, x):
        tokens = self.project(self.mix(x))
        return (tokens.permute(1, 2, 0).unflatten(2, x.shape[2:]),)


def test_what_cannot_be_told_image_by_image_is_not_kept():
    detector, trunk, cache = make(MixedBackbone(), ['backbone.project'])
    images = torch.randn(3, 3, 4, 4)
    entries = trunk.above_cut(batch_of(cache, images))
    torch.testing.assert_close(
        torch.cat([entry['0'] for entry in entries]), detector.extract_feat(images)[0]
    )
    assert len(cache) == 0


def test_trunk_grows_when_the_lowest_adapter_goes():
    from mmforget.adapters import remove_one

    detector, trunk, _ = make(Backbone(), ['backbone.first.first', 'backbone.third.second'])
    assert list(trunk.stages()) == ['below backbone.first.first', 'features']
    remove_one(detector, 'backbone.first.first', fold=False)
    assert list(trunk.stages()) == ['below backbone.third.second', 'features']
    remove_one(detector, 'backbone.third.second', fold=False)
    assert list(trunk.stages()) == ['features']
