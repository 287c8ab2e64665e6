"""Norms, penalty, threshold and exact zeros of groups."""

import pytest
import torch
from torch import nn

from mmforget.adapters import (
    AdapterGroup,
    LoRALinear,
    group_penalty,
    make_groups,
    proximal_step,
    zero_,
    zero_groups,
)


def adapter(seed, inp=6, out=8, rank=2, alpha=3.0, live=True, dtype=torch.float64):
    torch.manual_seed(seed)
    layer = LoRALinear.from_linear(nn.Linear(inp, out, dtype=dtype), rank, alpha)
    if live:
        with torch.no_grad():
            layer.lora_B.normal_()
    return layer


def adapters(**kwargs):
    names = [f'encoder.layers.{i}.ffn.layers.{end}' for i in (0, 1) for end in ('0.0', '1')]
    return {name: adapter(i, **kwargs) for i, name in enumerate(names)}


def test_groupings():
    layers = adapters()
    first, second, third, fourth = layers
    blocks = make_groups(layers)
    assert list(blocks) == ['encoder.layers.0', 'encoder.layers.1']
    assert [n for n, _, _ in blocks['encoder.layers.1'].members] == [third, fourth]
    assert list(make_groups(layers, 'adapter')) == list(layers)
    matrices = make_groups(layers, by='matrix')
    assert list(matrices)[:3] == [f'{first}.lora_A', f'{first}.lora_B', f'{second}.lora_A']
    assert matrices[f'{first}.lora_A'].parameters() == [layers[first].lora_A]
    for groups in (blocks, make_groups(layers, 'adapter'), matrices):
        seen = [p for group in groups.values() for p in group.parameters()]
        assert {id(p) for p in seen} == {
            id(p) for layer in layers.values() for p in (layer.lora_A, layer.lora_B)
        }
        assert len(seen) == 8
    assert make_groups({}) == {}
    with pytest.raises(ValueError, match=r"by='layer'.*'block', 'stage', 'adapter', 'matrix'"):
        make_groups(layers, by='layer')
    with pytest.raises(ValueError, match="matrices='C'"):
        AdapterGroup('g', [('a', layers[first], 'C')])


def test_norms_against_the_definition():
    layers = adapters()
    group = make_groups(layers)['encoder.layers.0']
    members = [layer for _, layer, _ in group.members]
    flat = torch.cat([p.detach().flatten() for m in members for p in (m.lora_A, m.lora_B)])
    assert group.norm('ab').item() == pytest.approx(flat.norm().item())
    flat = torch.cat([m.lora_B.detach().flatten() for m in members])
    assert group.norm('b').item() == pytest.approx(flat.norm().item())
    flat = torch.cat([m.delta().detach().flatten() for m in members])
    assert group.norm('ba').item() == pytest.approx(flat.norm().item())
    with pytest.raises(ValueError, match="kind='a'"):
        group.norm('a')


@pytest.mark.parametrize('by', ['block', 'adapter'])
@pytest.mark.parametrize('kind', ['ab', 'b', 'ba'])
def test_gradient_of_the_penalty(by, kind):
    layers = {n: a for n, a in list(adapters().items())[:2]}
    groups = make_groups(layers, by)
    parameters = [p for layer in layers.values() for p in (layer.lora_A, layer.lora_B)]

    def run(*_):
        return group_penalty(groups, kind)

    assert torch.autograd.gradcheck(run, parameters)


def test_paper_gradient():
    group = next(iter(make_groups(adapters()).values()))
    group.norm('ab').backward()
    for p in group.parameters():
        torch.testing.assert_close(p.grad, (p / group.norm('ab')).detach())


@pytest.mark.parametrize('kind', ['ab', 'b', 'ba'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradient_is_finite_at_zero(kind, dtype):
    for both in (False, True):
        layers = adapters(live=False, dtype=dtype)
        if both:
            for layer in layers.values():
                nn.init.zeros_(layer.lora_A)
        penalty = group_penalty(make_groups(layers), kind)
        penalty.backward()
        for layer in layers.values():
            for p in (layer.lora_A, layer.lora_B):
                assert p.grad is None or p.grad.isfinite().all()
        if kind != 'ab':
            assert penalty.item() == 0, 'born at zero'
        elif both:
            assert penalty.item() < 1e-5


def test_penalty_is_the_plain_sum():
    layers = adapters()
    groups = make_groups(layers)
    want = sum(
        sum(p.detach().square().sum() for p in group.parameters()) ** 0.5
        for group in groups.values()
    )
    assert group_penalty(groups).item() == pytest.approx(want.item())
    assert group_penalty({}).item() == 0
    with pytest.raises(ValueError, match="kind='l1'"):
        group_penalty({}, 'l1')


def test_proximal_step_solves_its_problem():
    group = next(iter(make_groups(adapters()).values()))
    old = torch.cat([p.detach().flatten() for p in group.effect()])
    assert proximal_step([group], 0.7).item() == pytest.approx(old.norm().item() - 0.7)
    new = torch.cat([p.detach().flatten() for p in group.effect()])
    # stationarity of 0.5 ||b - old||^2 + 0.7 ||b||
    torch.testing.assert_close(new - old + 0.7 * new / new.norm(), torch.zeros_like(new))
    assert group.norm('b').item() == pytest.approx(old.norm().item() - 0.7)


def test_proximal_step_leaves_a_and_refreshes_the_layers():
    layers = adapters(dtype=torch.float32)
    groups = make_groups(layers)
    x = torch.randn(3, 6)
    layer = next(iter(layers.values()))
    a, before = layer.lora_A.detach().clone(), layer(x)
    proximal_step([groups['encoder.layers.0']], 0.5)
    assert torch.equal(layer.lora_A, a)
    want = nn.functional.linear(x, layer.weight + layer.delta(), layer.bias)
    torch.testing.assert_close(layer(x), want)
    assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize('factor', [1.0, 1.5, float('inf')])
def test_exact_zeros(factor):
    layers = adapters()
    group, other = make_groups(layers).values()
    assert not group.is_zero()
    assert proximal_step([group], factor * group.norm('b').item()).item() == 0.0
    assert group.is_zero() and not other.is_zero()
    assert group.norm('b').item() == 0 and group.norm('ba').item() == 0
    for _, layer, _ in group.members:
        x = torch.randn(3, 6, dtype=torch.float64)
        assert torch.equal(layer(x), layer.original(x))
    assert proximal_step([group], 0.0).item() == 0.0
    zero_(other)
    assert other.is_zero()


def test_threshold_zero_changes_nothing():
    group = next(iter(make_groups(adapters()).values()))
    before = [p.detach().clone() for p in group.effect()]
    assert proximal_step([group], 0.0).item() == pytest.approx(group.norm('b').item())
    assert all(torch.equal(p, q) for p, q in zip(group.effect(), before, strict=True))


def test_groups_of_a_alone():
    layers = adapters()
    name, layer = next(iter(layers.items()))
    group = make_groups(layers, 'matrix')[f'{name}.lora_A']
    b = layer.lora_B.detach().clone()
    norm = layer.lora_A.detach().norm().item()
    assert group.norm('ab').item() == pytest.approx(norm)
    assert proximal_step([group], norm / 4).item() == pytest.approx(norm * 0.75)
    assert layer.lora_A.detach().norm().item() == pytest.approx(norm * 0.75)
    proximal_step([group], norm)
    assert group.is_zero() and not layer.lora_A.any()
    assert torch.equal(layer.lora_B, b)


@pytest.mark.parametrize('threshold', [-1.0, float('nan')])
def test_bad_threshold(threshold):
    group = next(iter(make_groups(adapters()).values()))
    with pytest.raises(ValueError, match='thresholds='):
        proximal_step([group], threshold)


@pytest.mark.parametrize('broken', [float('nan'), float('inf')])
def test_the_threshold_hides_nothing_that_is_not_finite(broken):
    """No device is waited for, so the group must show it to whoever looks at the weights next."""
    first, second = make_groups(adapters()).values()
    before = second.norm('b').item()
    with torch.no_grad():
        first.effect()[0][0, 0] = broken
    norms = proximal_step([first, second], torch.tensor([1e9, 0.1], dtype=torch.float64))
    assert not first.effect()[0].isfinite().all()
    assert not first.is_zero()
    assert norms[1].item() == pytest.approx(before - 0.1)
    proximal_step([second], torch.tensor([float('nan')], dtype=torch.float64))
    assert second.effect()[0].isnan().all()


def test_each_group_has_its_own_threshold():
    layers = {f'blocks.{i}.fc{j}': adapter(2 * i + j) for i in range(3) for j in range(1, 3)}
    groups = list(make_groups(layers).values())
    old = [[p.detach().clone() for p in group.effect()] for group in groups]
    norms = [torch.cat([p.flatten() for p in effect]).norm() for effect in old]
    thresholds = torch.stack([0.3 * norms[0], 2 * norms[1], 0 * norms[2]])
    new = proximal_step(groups, thresholds)
    torch.testing.assert_close(new, torch.stack([0.7 * norms[0], 0 * norms[1], norms[2]]))
    for group, before, factor in zip(groups, old, (0.7, 0.0, 1.0), strict=True):
        for matrix, was in zip(group.effect(), before, strict=True):
            torch.testing.assert_close(matrix.detach(), factor * was)
    assert zero_groups(make_groups(layers)) == ['blocks.1']
    assert zero_groups({}) == []


def test_proximal_descent_prunes_what_the_data_do_not_need():
    """One layer has something to learn, the other nothing: only the latter ends at exact zero."""
    torch.manual_seed(0)
    layers = {
        'blocks.0.mlp.fc1': adapter(0, live=False),
        'blocks.1.mlp.fc1': adapter(1, live=False),
    }
    first, second = layers.values()
    for layer in layers.values():
        nn.init.normal_(layer.lora_B, std=0.1)
    x = torch.randn(64, 6, dtype=torch.float64)
    shift = torch.randn(8, 2, dtype=torch.float64) @ first.lora_A.detach()
    wanted = first.original(x) + x @ shift.t()
    still = second.original(x)
    groups = make_groups(layers)
    optimiser = torch.optim.SGD([p for g in groups.values() for p in g.parameters()], lr=0.05)
    for _ in range(60):
        loss = (first(x) - wanted).square().mean() + (second(x) - still).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        proximal_step(list(groups.values()), 0.01)
    assert groups['blocks.1'].is_zero()
    assert groups['blocks.0'].norm('b') > 0.3
