"""The two forms of sparsity on real adapters and a real AdamW."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmforget.adapters import inject, make_groups
from mmforget.structures import ForgettingTask
from mmforget.trainable.sparsity import (
    ChosenGroups,
    GroupPenalty,
    GroupRanking,
    GroupSelection,
    GroupTrial,
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


def threshold_by_hand(group, optimizer):
    """A group's pull and metric, matrix by matrix in Python's own floats."""
    first, second, size = 0.0, 0.0, 0
    for parameter in group.effect():
        state, options = optimizer.state[parameter], optimizer.param_groups[0]
        (beta1, beta2), count = options['betas'], float(state['step'])
        first += state['exp_avg'].double().square().sum().item() / (1 - beta1**count) ** 2
        second += state['exp_avg_sq'].double().sum().item() / (1 - beta2**count)
        size += parameter.numel()
    return first**0.5, (second / size) ** 0.5


@pytest.mark.parametrize('fused', [False, True])
def test_selection_is_the_plain_formula(fused):
    network, groups, optimizer = build([1.0, 0.3, 0.9], lr=1e-2)
    for options in optimizer.param_groups:
        options['fused'] = fused
    selection = GroupSelection(strength=0.8, window=1.0)
    torch.manual_seed(1)
    for step in range(1, 6):
        network(torch.randn(16, 6)).backward()
        optimizer.step()
        optimizer.zero_grad()
        by_hand = {name: threshold_by_hand(group, optimizer) for name, group in groups.items()}
        needed = 0.8 * max(pull for pull, _ in by_hand.values())
        before = {n: [p.detach().double() for p in g.effect()] for n, g in groups.items()}
        assert selection.after_step(groups, optimizer, step, 10) == []
        for name, group in groups.items():
            norm = torch.cat([p.flatten() for p in before[name]]).norm().item()
            factor = max(0.0, 1 - 1e-2 * needed / by_hand[name][1] / norm) if norm else 0.0
            for matrix, was in zip(group.effect(), before[name], strict=True):
                got = matrix.detach().double()
                torch.testing.assert_close(got, factor * was, rtol=1e-6, atol=1e-9)
    assert not groups['layers.0'].is_zero()


def test_selection_waits_for_the_optimisers_first_step():
    """Gradients are accumulated over several steps, or a scaler skips those that overflow."""
    network, groups, optimizer = build([1.0, 0.5])
    selection = GroupSelection(strength=0.5, window=1.0)
    assert selection.after_step(groups, optimizer, 1, 10) == []
    network(torch.randn(16, 6)).backward()
    optimizer.step()
    selection.after_step(groups, optimizer, 2, 10)
    assert not groups['layers.0'].is_zero()


class Waits(TorchDispatchMode):
    """Counts reads of a tensor's value by Python."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 'local_scalar' in str(func)
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device():
    network, groups, optimizer = build([1.0, 0.01, 0.9])
    network(torch.randn(16, 6)).backward()
    optimizer.step()
    with Waits() as waits:
        GroupSelection(strength=0.3, window=1.0).after_step(groups, optimizer, 1, 10)
        GroupPenalty(1.0).penalty(groups, 0).backward()
    assert waits.number == 0


@pytest.mark.gpu
@pytest.mark.parametrize('fused', [False, True])
def test_no_step_waits_for_the_gpu(fused):
    network, groups, _ = build([1.0, 0.01, 0.9])
    network.cuda()
    parameters = [p for g in groups.values() for p in g.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=fused)
    network(torch.randn(16, 6, device='cuda')).backward()
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        GroupSelection(strength=0.3, window=1.0).after_step(groups, optimizer, 1, 10)
        GroupPenalty(1.0).penalty(groups, 0).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert groups['layers.1'].is_zero() and not groups['layers.0'].is_zero()


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


def gradients(signal, noise, batches=16, size=40, seed=0):
    """Rows that share a mean of length ``signal`` and have noise of length ``noise``."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.zeros(size)
    direction[0] = signal
    spread = noise / size**0.5
    return direction + spread * torch.randn(batches, size, generator=generator)


def test_ranking_prefers_much_forgetting_at_a_low_price():
    forget = {
        'strong': gradients(1.0, 0.1),
        'weak': gradients(0.1, 0.1),
        'costly': gradients(1.0, 0.1),
    }
    retain = {
        'strong': gradients(0.0, 0.5, seed=1),
        'weak': gradients(0.0, 0.5, seed=2),
        # The retain losses pull along the very direction that forgets.
        'costly': gradients(2.0, 0.5, seed=3),
    }
    ranking = GroupRanking(strength=0.5).rank(forget, retain)
    assert ranking.dead == ['weak', 'costly']
    assert ranking.scores['strong'] > 10 * max(ranking.scores['weak'], ranking.scores['costly'])


def test_score_is_the_inverse_price_of_forgetting():
    """Without noise: score = |f|^2 / E[(r . f/|f|)^2], by hand."""
    forget = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    retain = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    expected = 25 / (((3 / 5) ** 2 + (2 * 4 / 5) ** 2) / 2)
    scores = GroupRanking(batches=2).rank({'a': forget}, {'a': retain}).scores
    assert scores['a'] == pytest.approx(expected)


def test_noise_alone_is_no_signal():
    """The squared norm of a mean of noise is not zero; products of different batches are."""
    noise = [{'a': gradients(0.0, 1.0, seed=seed)} for seed in range(40)]
    assert min(rows['a'].mean(dim=0).square().sum().item() for rows in noise) > 0.02
    scores = [GroupRanking().rank(rows, rows).scores['a'] for rows in noise]
    assert 10 <= sum(score == 0.0 for score in scores) <= 30


def test_ranking_does_not_depend_on_the_scale_of_either_stream():
    forget = {'a': gradients(1.0, 0.1), 'b': gradients(0.5, 0.1), 'c': gradients(0.1, 0.1)}
    retain = {name: gradients(0.0, 1.0, seed=i) for i, name in enumerate(forget)}
    dead = GroupRanking(0.5).rank(forget, retain).dead
    scaled = {name: 1e3 * g for name, g in forget.items()}
    shrunk = {name: 1e-3 * g for name, g in retain.items()}
    assert GroupRanking(0.5).rank(scaled, shrunk).dead == dead


@pytest.mark.parametrize(
    ('gains', 'dead'),
    [
        ({'a': 1.0, 'b': 0.71, 'c': 0.69, 'd': -0.5}, ['c', 'd']),
        ({'a': 1e-4, 'b': -math.inf}, ['b']),
        ({'a': -1.0, 'b': 0.0, 'c': -math.inf}, []),
    ],
)
def test_a_group_needs_its_share_of_the_best_gain(gains, dead):
    """Where no group serves the objective alone, trials decide nothing."""
    ranking = GroupTrial(strength=0.7).choose(gains)
    assert ranking.dead == dead
    assert ranking.scores == gains


@pytest.mark.parametrize(
    ('gains', 'suffice'),
    [
        ([1.0, 0.1], False),  # One failure; two are allowed.
        ([1.0, 0.1, 0.2], True),
        ([1.0, 0.1, 0.9], False),
        ([0.1, 0.2, 1.0, 0.1], False),
        ([-1.0, -2.0, -3.0], False),  # Nothing lowers the objective yet: search on.
    ],
)
def test_patience_ends_the_search(gains, suffice):
    named = {str(index): gain for index, gain in enumerate(gains)}
    assert GroupTrial(strength=0.7, patience=2).trials_suffice(named) == suffice
    assert not GroupTrial(strength=0.7).trials_suffice(named)


@pytest.mark.parametrize(
    ('groups', 'task', 'dead'),
    [
        (['layers.1'], 0, ['layers.0', 'layers.2']),
        ([['layers.0'], ['layers.1', 'layers.2']], 1, ['layers.0']),
    ],
)
def test_chosen_groups(groups, task, dead):
    _, made, _ = build([1] * 3)
    chosen = ForgettingTask(task, ('a',), ('b',), ())
    assert (
        build_sparsity({'type': 'ChosenGroups', 'groups': groups}).before_task(made, chosen, seed=0)
        == dead
    )


def test_a_chosen_group_that_does_not_exist():
    _, groups, _ = build([1, 1])
    with pytest.raises(ValueError, match=r"\['layers.7'\], but the groups are: layers.0, layers.1"):
        ChosenGroups(['layers.7']).before_task(groups, TASK, seed=0)


def test_fewer_values_than_tasks():
    _, groups, _ = build([1, 1])
    third = ForgettingTask(2, ('c',), ('d',), ('a', 'b'))
    with pytest.raises(ValueError, match='task number 3'):
        RandomGroups([1, 1]).before_task(groups, third, seed=0)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'Nothing'}, "'Nothing'; expected one of"),
        ({'type': 'GroupSelection', 'power': 2}, r"no argument \['power'\]"),
        ({'type': 'GroupSelection', 'strength': 1.0}, r'strength in \[0, 1\)'),
        ({'type': 'GroupSelection', 'window': 0.0}, r'window in \(0, 1\]'),
        ({'type': 'GroupPenalty', 'strength': -1.0}, 'not negative'),
        ({'type': 'RandomGroups', 'number': 0}, 'at least 1'),
        ({'type': 'ChosenGroups', 'groups': []}, 'at least one name'),
        ({'type': 'GroupRanking', 'strength': 1.5}, r'in \[0, 1\]'),
        ({'type': 'GroupRanking', 'batches': 1}, 'at least 2'),
        ({'type': 'GroupTrial', 'strength': -0.1}, r'in \[0, 1\]'),
        ({'type': 'GroupTrial', 'steps': 0}, 'steps=0; expected at least 1'),
        ({'type': 'GroupTrial', 'held_out': 0.5}, 'held_out=0.5'),
        ({'type': 'GroupTrial', 'lr_factor': 0}, 'lr_factor=0'),
        ({'type': 'GroupTrial', 'images': 0}, 'images=0'),
        ({'type': 'GroupTrial', 'patience': 0}, 'patience=0'),
    ],
)
def test_wrong_arguments_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build_sparsity(config)


def test_more_random_groups_than_there_are():
    _, groups, _ = build([1, 1])
    with pytest.raises(ValueError, match='there are 2 groups'):
        RandomGroups(3).before_task(groups, TASK, seed=0)
