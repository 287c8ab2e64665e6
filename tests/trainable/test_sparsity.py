"""The two forms of sparsity on real adapters and a real AdamW."""

import pytest
import torch
from torch import nn

from mmforget.adapters import inject, make_groups
from mmforget.structures import ForgettingTask
from mmforget.trainable.sparsity import (
    GroupPenalty,
    GroupSelection,
    RandomGroups,
    build_sparsity,
)

TASK = ForgettingTask(0, ('a',), ('b',), ())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ffn = nn.ModuleDict({'a': nn.Linear(6, 8), 'b': nn.Linear(8, 6)})

    def forward(self, x):
        return x + self.ffn['b'](torch.relu(self.ffn['a'](x)))


class Network(nn.Module):
    def __init__(self, pulls):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in pulls)
        for block in self.layers:  # Equal blocks, so that the pulls alone tell them apart.
            block.load_state_dict(self.layers[0].state_dict())
        self.pulls = pulls

    def forward(self, x):
        """The objective pulls on block i with weight ``pulls[i]``, on every block alone."""
        return sum(
            w * (block(x) - 2).square().mean()
            for w, block in zip(self.pulls, self.layers, strict=True)
        )


def build(pulls, lr=1e-2, seed=0):
    torch.manual_seed(seed)
    network = Network(pulls)
    adapters = inject(network, r'layers\.\d+\.ffn\..', rank=2, alpha=2, seed=seed)
    groups = make_groups(adapters)
    parameters = [p for a in adapters.values() for p in (a.lora_A, a.lora_B)]
    return network, groups, torch.optim.AdamW(parameters, lr=lr)


def train(network, groups, optimizer, sparsity, steps):
    """Runs ``steps``; returns the names of the groups found dead at each step."""
    torch.manual_seed(1)
    dead = []
    for step in range(1, steps + 1):
        loss = network(torch.randn(16, 6))
        penalty = sparsity.penalty(groups, step - 1)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        dead.append(sparsity.after_step(groups, optimizer, step, steps))
        for name in dead[-1]:
            assert groups.pop(name).is_zero()
    return dead


def test_penalty_is_alpha_times_the_sum_of_group_norms():
    _, groups, _ = build([1, 1])
    expected = sum(
        torch.cat([p.flatten() for p in g.parameters()]).norm().item() for g in groups.values()
    )
    assert GroupPenalty(3e-4).penalty(groups, 0).item() == pytest.approx(3e-4 * expected, rel=1e-5)


def test_penalty_waits_for_the_warmup():
    _, groups, _ = build([1])
    sparsity = GroupPenalty(1.0, warmup=5)
    assert sparsity.penalty(groups, 4) is None
    assert sparsity.penalty(groups, 5) is not None


def test_penalty_never_gives_an_exact_zero():
    """What the corrected form is for: under Adam the paper's penalty kills no group."""
    network, groups, optimizer = build([1, 0.001])
    dead = train(network, groups, optimizer, GroupPenalty(0.1), 30)
    assert not any(dead)
    assert not any(group.is_zero() for group in groups.values())


def test_selection_kills_groups_without_pull_and_keeps_the_strong():
    network, groups, optimizer = build([1.0, 0.01, 0.9])
    dead = train(network, groups, optimizer, GroupSelection(strength=0.3, window=0.5), 20)
    assert dead[9] == ['layers.1']
    assert not any(d for i, d in enumerate(dead) if i != 9)
    assert set(groups) == {'layers.0', 'layers.2'}
    assert not groups['layers.0'].is_zero() and not groups['layers.2'].is_zero()


def test_selection_does_not_depend_on_the_scale_of_the_objective():
    for scale in (1e-3, 1.0, 1e3):
        network, groups, optimizer = build([scale * w for w in (1.0, 0.01, 0.9)])
        dead = train(network, groups, optimizer, GroupSelection(strength=0.3, window=0.5), 20)
        assert dead[9] == ['layers.1']


def test_adam_alone_would_wake_every_group():
    """Adam moves every group at one pace: without the metric nothing could be told apart."""
    network, groups, optimizer = build([1.0, 0.01, 0.9])
    train(network, groups, optimizer, GroupSelection(strength=0.0, window=0.5), 20)
    norms = [group.norm('b').item() for group in groups.values()]
    assert min(norms) > 0.3 * max(norms)


def test_survivors_are_free_of_the_threshold_after_the_window():
    network, groups, optimizer = build([1.0, 0.01])
    selection = GroupSelection(strength=0.5, window=0.25)
    train(network, groups, optimizer, selection, 20)
    before = groups['layers.0'].norm('b').item()
    assert selection.after_step(groups, optimizer, 20, 20) == []
    assert groups['layers.0'].norm('b').item() == before


def test_selection_needs_the_moments_of_adam():
    network, groups, _ = build([1.0])
    parameters = [p for g in groups.values() for p in g.parameters()]
    with pytest.raises(TypeError, match='AdamW'):
        train(network, groups, torch.optim.SGD(parameters, lr=0.1), GroupSelection(), 4)


def test_random_groups_keep_the_number_asked_for_and_follow_the_seed():
    _, groups, _ = build([1] * 6)
    sparsity = RandomGroups([2, 5])
    dead = sparsity.before_task(groups, TASK, seed=0)
    assert len(dead) == 4 and set(dead) < set(groups)
    assert dead == sparsity.before_task(groups, TASK, seed=0)
    assert any(dead != sparsity.before_task(groups, TASK, seed=s) for s in range(1, 5))
    second = ForgettingTask(1, ('b',), ('c',), ('a',))
    assert len(sparsity.before_task(groups, second, seed=0)) == 1


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'Nothing'}, "'Nothing'; expected one of"),
        ({'type': 'GroupSelection', 'power': 2}, r"no argument \['power'\]"),
        ({'type': 'GroupSelection', 'strength': 1.0}, r'strength in \[0, 1\)'),
        ({'type': 'GroupSelection', 'window': 0.0}, r'window in \(0, 1\]'),
        ({'type': 'GroupPenalty', 'strength': -1.0}, 'not negative'),
        ({'type': 'RandomGroups', 'number': 0}, 'at least 1'),
    ],
)
def test_wrong_arguments_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build_sparsity(config)


def test_more_random_groups_than_there_are():
    _, groups, _ = build([1, 1])
    with pytest.raises(ValueError, match='there are 2 groups'):
        RandomGroups(3).before_task(groups, TASK, seed=0)
