"""The low-rank convolution against the two convolutions it stands for, and against peft."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmforget.adapters import (
    LoRAConv2d,
    adapter_state,
    apply_adapters,
    disable_adapters,
    inject,
    load_adapters,
    remove,
    save_adapters,
)

GEOMETRIES = [
    {'kernel_size': 1},
    {'kernel_size': 3, 'padding': 1},
    {'kernel_size': 3, 'padding': 1, 'stride': 2, 'bias': False},
    {'kernel_size': (3, 1), 'padding': (2, 0), 'dilation': (2, 1)},
]


def awake(geometry, dtype=torch.float64, rank=3):
    torch.manual_seed(0)
    layer = LoRAConv2d(nn.Conv2d(4, 6, **geometry, dtype=dtype), rank, 2.0)
    with torch.no_grad():
        layer.lora_B.normal_()
    return layer


def by_hand(layer, x, lora_A, lora_B):
    """The plain convolution plus one to ``rank`` channels and a 1×1 one back."""
    geometry = (layer.stride, layer.padding, layer.dilation)
    up = F.conv2d(x, lora_A.view(-1, 4, *layer.kernel_size), None, *geometry)
    return F.conv2d(x, layer.weight, layer.bias, *geometry) + layer.scaling * F.conv2d(
        up, lora_B[:, :, None, None]
    )


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_fresh_layer_gives_the_same_bits(geometry):
    plain = nn.Conv2d(4, 6, **geometry)
    x = torch.randn(2, 4, 9, 8)
    want = plain(x)
    layer = LoRAConv2d(plain, 3, 1.0)
    assert torch.equal(layer(x), want)
    with torch.no_grad():
        assert torch.equal(layer(x), want)
    assert layer.lora_A.shape == (3, plain.weight[0].numel())
    assert layer.lora_B.shape == (6, 3)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_values_and_gradients_are_those_of_two_convolutions(geometry):
    layer = awake(geometry)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    ours = layer(x)
    theirs = by_hand(layer, *inputs)
    torch.testing.assert_close(ours, theirs)
    seed = torch.randn_like(ours)
    for mine, want in zip(
        torch.autograd.grad(ours, inputs, seed),
        torch.autograd.grad(theirs, inputs, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, want)
    assert layer.weight.grad is None


@pytest.mark.parametrize('geometry', GEOMETRIES[1:3])
def test_gradcheck(geometry):
    layer = awake(geometry)
    x = torch.randn(1, 4, 5, 4, dtype=torch.float64, requires_grad=True)

    def run(x, lora_A, lora_B):
        layer.refresh()
        return layer(x)

    assert torch.autograd.gradcheck(run, (x, layer.lora_A, layer.lora_B))


def test_no_gradient_of_the_size_of_the_kernel_is_kept():
    """What is saved for the backward pass: the input, the shared sum, A and B."""
    layer = awake(GEOMETRIES[1])
    saved = []
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(tuple(t.shape)) or t, lambda t: t
    ):
        layer(x).sum()
    assert sorted(saved) == sorted([(2, 4, 9, 8), (6, 4, 3, 3), (3, 36), (6, 3)])


def test_merge_is_undone_bit_by_bit_and_folding_keeps_the_output():
    layer = awake(GEOMETRIES[1], torch.float32)
    before, x = layer.weight.clone(), torch.randn(2, 4, 9, 8)
    with torch.no_grad():
        want = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), want)
    layer.unmerge()
    assert torch.equal(layer.weight, before)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    adapters = inject(model, ['0', '2'], 2, 1.0)
    for adapter in adapters.values():
        nn.init.normal_(adapter.lora_B)
    want = model(x)
    with disable_adapters(model):
        assert not torch.allclose(model(x), want)
    remove(model, adapters, fold=True)
    assert type(model[0]) is nn.Conv2d
    torch.testing.assert_close(model(x), want)


def test_autocast_lowers_the_layer_as_it_lowers_a_convolution():
    layer = awake(GEOMETRIES[1], torch.float32)
    x = torch.randn(2, 4, 9, 8)
    exact = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        lowered = layer(x)
    assert lowered.dtype == torch.bfloat16
    torch.testing.assert_close(lowered.float(), exact, rtol=0.05, atol=0.1)
    lowered.float().sum().backward()
    assert layer.lora_A.grad.dtype == layer.lora_B.grad.dtype == torch.float32


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding='same'),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect'),
        nn.ConvTranspose2d(4, 4, 2),
        nn.Linear(4, 4),
    ],
)
def test_what_cannot_be_adapted_is_refused(conv):
    with pytest.raises(TypeError, match='groups=1'):
        LoRAConv2d(conv, 2, 1.0)


def test_rank_is_bounded_by_the_kernel_as_a_matrix():
    LoRAConv2d(nn.Conv2d(1, 20, 3), 9, 1.0)
    with pytest.raises(ValueError, match=r'rank=10 .*\(20, 9\)'):
        LoRAConv2d(nn.Conv2d(1, 20, 3), 10, 1.0)


def plain_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))


def test_peft_reads_ours_and_ours_reads_pefts(tmp_path):
    peft = pytest.importorskip('peft')
    x = torch.randn(2, 4, 5, 5)
    model = plain_model()
    adapters = inject(model, ['0', '2'], 2, 3.0)
    for adapter in adapters.values():
        nn.init.normal_(adapter.lora_B)
    save_adapters(tmp_path / 'ours', adapter_state(adapters), 'base')
    theirs = peft.PeftModel.from_pretrained(plain_model(), tmp_path / 'ours')
    torch.testing.assert_close(theirs(x), model(x))

    config = peft.LoraConfig(r=2, lora_alpha=5, target_modules=['0', '2'], init_lora_weights=False)
    theirs = peft.get_peft_model(plain_model(), config)
    theirs.save_pretrained(tmp_path / 'theirs')
    mine = plain_model()
    apply_adapters(mine, load_adapters(tmp_path / 'theirs'))
    torch.testing.assert_close(mine(x), theirs(x))


def test_applying_to_another_kernel_is_refused(tmp_path):
    adapters = inject(nn.Sequential(nn.Conv2d(4, 6, 3)), ['0'], 2, 1.0)
    save_adapters(tmp_path / 'a', adapter_state(adapters), 'base')
    state = load_adapters(tmp_path / 'a')
    other = nn.Sequential(nn.Conv2d(12, 6, (1, 3)))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"'0' is \(6, 12, 1, 3\).*kernel of \(3, 3\)"):
        apply_adapters(other, state)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
