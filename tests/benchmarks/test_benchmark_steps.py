"""The references and our stages do the same work: same losses, same updates."""

import copy

import pytest
import torch
from torch import nn

from mmforget.adapters import find_targets
from mmforget.benchmarks.adapter_libraries import (
    adapt,
    start_alike,
    with_loralib,
    with_mmforget,
    with_peft,
)
from mmforget.benchmarks.recipe_step import Recipe, penalty_by_name
from mmforget.benchmarks.run import fold_loralib
from mmforget.benchmarks.steps import ALIKE, DECODER, ONE_GROUP, R2, StepVariants
from mmforget.methods import FORGET, RETAIN
from mmforget.testing import tiny_detector

LIBRARIES = [with_loralib, with_peft, with_mmforget]


@pytest.fixture(scope='module')
def variants(build_tiny, tiny_batch):
    config = tiny_detector(dropout=0.0)
    # The references freeze BatchNorm as the config says.
    config['backbone']['norm_eval'] = True
    detector = build_tiny(config)
    data = tiny_batch(4)
    batch = {
        FORGET: {key: values[:2] for key, values in data.items()},
        RETAIN: {key: values[2:] for key, values in data.items()},
    }
    return StepVariants(
        lambda: copy.deepcopy(detector),
        lambda: [batch],
        ['decoder.layers.0', 'decoder.layers.1'],
        'decoder.layers.1',
        Recipe(learning_rate=1e-3),
    )


def moved(detector):
    """All adapters' matrices of a detector, whoever made them: (number of values,)."""
    found = [p.detach().flatten() for n, p in detector.named_parameters() if 'lora_' in n]
    return torch.cat(found)


def test_variants_take_the_same_steps(variants):
    built = variants.all()
    losses, weights = {}, {}
    for name in ALIKE:
        action = built[name]()
        start = moved(action.detector).clone()
        for _ in range(3):
            action()
        losses[name] = action.first_loss
        weights[name] = moved(action.detector) - start
    first = ALIKE[0]
    assert weights[first].norm() > 1e-2
    for name in ALIKE[1:]:
        assert losses[name] == pytest.approx(losses[first], rel=1e-5), name
        # Adam's first steps amplify rounding where a gradient is nearly zero.
        difference = (weights[name] - weights[first]).norm() / weights[first].norm()
        assert difference < 1e-2, name


def test_pruned_variants_train_less_and_remember(variants):
    built = variants.all()
    decoder, one = built[DECODER](), built[ONE_GROUP]()
    assert decoder.trainable == 2 * one.trainable
    one.warm()
    filled = one.cache_bytes
    one()
    assert filled > 0 and one.cache_bytes == filled
    assert set(one.details()) == {'first loss', 'cold s'}


def test_full_fine_tuning_moves_the_backbone(variants):
    action = variants.all()[R2]()
    weight = action.detector.backbone.conv1.conv.weight
    before = weight.detach().clone()
    statistics = action.detector.backbone.conv1.bn.running_mean.clone()
    action()
    assert not torch.equal(weight, before)
    assert torch.equal(action.detector.backbone.conv1.bn.running_mean, statistics)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 12))


def test_libraries_compute_the_same(network):
    x = torch.randn(5, 12)
    outputs, gradients = [], []
    for library in LIBRARIES:
        model = copy.deepcopy(network)
        adapt(model, ['0', '2'], library, rank=4)
        trainable = [p for p in model.parameters() if p.requires_grad]
        assert len(trainable) == 4
        out = model(x)
        out.square().sum().backward()
        outputs.append(out)
        gradients.append(torch.cat([p.grad.flatten() for p in trainable]))
    assert not torch.allclose(outputs[0], network(x), atol=1e-7)
    for out, gradient in zip(outputs[1:], gradients[1:], strict=True):
        torch.testing.assert_close(out, outputs[0])
        torch.testing.assert_close(gradient, gradients[0])


def test_penalty_by_name():
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleDict({'ffn': nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))}) for _ in range(2)
    )
    adapt(model, r'layers\.\d\.ffn\.\d', with_loralib, rank=2)
    expected = 0.0
    for block in model.layers:
        matrices = [p for n, p in block.named_parameters() if 'lora_' in n]
        expected += torch.cat([m.flatten() for m in matrices]).norm()
    torch.testing.assert_close(penalty_by_name(model), expected)


def test_folding_keeps_the_function(network):
    layers = find_targets(network, ['0', '2'])
    start_alike(with_loralib(network, layers, 4), seed=1)
    x = torch.randn(5, 12)
    before = network(x)
    fold_loralib(network, layers)
    assert [type(module) for module in network] == [nn.Linear, nn.ReLU, nn.Linear]
    torch.testing.assert_close(network(x), before)
