"""Trials of single groups: gains by hand, nothing left behind, and the loop's use of them."""

import json
import math

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmforget.engine.randomness import seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.engine.trials import group_gains
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.trainable import GroupSparseLoRA, TrialPlan

TASK = ForgettingTask(0, ('bag',), ('dress',), ())
PLAN = TrialPlan(steps=3, held_out=2, lr_factor=2.0)
NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


def make_step(model, **sparsity):
    trainable = GroupSparseLoRA(rank=2, sparsity=sparsity or {'type': 'GroupTrial'})
    trainable.inject(model, TASK, seed=3)
    return ForgettingStep(model, build_tap(model), GSLoRA(forget_weight=0.5), trainable).train()


def adamw(step):
    return OptimWrapper(torch.optim.AdamW(step.trainable.parameters(), lr=5e-3))


@pytest.fixture
def batches(tiny_batch):
    return [{FORGET: tiny_batch(1), RETAIN: tiny_batch(2)} for _ in range(5)]


def objective(step, batch):
    return sum(v for k, v in step(batch, 0).items() if k.startswith('loss'))


@torch.no_grad()
def without_dropout(step, batches):
    for child in step.train().detector.children():
        child.eval()
    return sum(objective(step, batch).item() for batch in batches) / len(batches)


def test_gains_are_those_of_training_each_group_alone(build_tiny, batches):
    step = make_step(build_tiny())
    gains = group_gains(step, lambda: adamw(step), batches, PLAN, seed=7, task=0)
    assert list(gains) == step.trainable.group_names[::-1]
    for name in ('encoder.layers.1', 'decoder.layers.0'):
        alone = make_step(build_tiny(), type='ChosenGroups', groups=[name])
        before = without_dropout(alone, batches[3:])
        alone.train()
        optimizer = torch.optim.AdamW(alone.trainable.parameters(), lr=1e-2)
        for number, batch in enumerate(batches[:3]):
            seed_step(7, 0, number)
            optimizer.zero_grad()
            objective(alone, batch).backward()
            optimizer.step()
        after = without_dropout(alone, batches[3:])
        assert before != after
        assert gains[name] == pytest.approx(before - after, rel=1e-3, abs=1e-5)


def test_terms_that_come_and_go_are_no_gain(build_tiny, batches, monkeypatch):
    """A constant that is left out while one group lives changes no group's gain."""
    plain = group_gains(
        step := make_step(build_tiny()), lambda: adamw(step), batches, PLAN, seed=7, task=0
    )
    other = make_step(build_tiny())
    losses = type(other.method).losses

    def with_constant(method, forget, retain):
        terms = losses(method, forget, retain)
        if 'encoder.layers.1' not in other.trainable.groups:
            terms['loss_constant'] = torch.tensor(5.0)
        return terms

    monkeypatch.setattr(type(other.method), 'losses', with_constant)
    gains = group_gains(other, lambda: adamw(other), batches, PLAN, seed=7, task=0)
    assert gains == pytest.approx(plain, rel=1e-4, abs=1e-5)


def test_trials_leave_nothing_behind(build_tiny, batches):
    step = make_step(build_tiny())
    before = {k: v.clone() for k, v in step.detector.state_dict().items()}
    gains = group_gains(step, lambda: adamw(step), batches, PLAN, seed=7, task=0)
    step.trainable.choose_groups(gains)
    assert set(gains.values()) != {0.0}
    after = step.detector.state_dict()
    for key, value in after.items():
        assert torch.equal(value, before[key]), key
    assert all(norm == 0 for norm in step.trainable.group_norms().values())
    again = group_gains(step, lambda: adamw(step), batches, PLAN, seed=7, task=0)
    assert again == gains


def test_a_trial_that_is_not_finite_counts_as_the_worst(build_tiny, batches):
    step = make_step(build_tiny())

    def broken():
        optimizer = adamw(step)
        if 'encoder.layers.0' in step.trainable.groups:
            optimizer.param_groups[0]['lr'] = math.nan
        return optimizer

    gains = group_gains(step, broken, batches, PLAN, seed=7, task=0)
    assert [name for name, gain in gains.items() if gain == -math.inf] == ['encoder.layers.0']


def test_the_search_ends_when_it_has_seen_enough(build_tiny, batches, monkeypatch):
    step = make_step(build_tiny())
    monkeypatch.setattr(step.trainable.sparsity, 'trials_suffice', lambda gains: len(gains) == 2)
    gains = group_gains(step, lambda: adamw(step), batches, PLAN, seed=7, task=0)
    assert list(gains) == ['decoder.layers.1', 'decoder.layers.0']
    step.trainable.choose_groups({'decoder.layers.1': 1.0, 'decoder.layers.0': 0.1})
    assert list(step.trainable.groups) == ['decoder.layers.1']


def test_fewer_images_of_each_batch(build_tiny, batches):
    """The retain stream has two images a batch, the forget stream one."""
    step = make_step(build_tiny())
    plan = TrialPlan(steps=3, held_out=2, lr_factor=2.0, images=1)
    gains = group_gains(step, lambda: adamw(step), batches, plan, seed=7, task=0)
    cut = [
        {name: {k: v[:1] for k, v in data.items()} for name, data in batch.items()}
        for batch in batches
    ]
    assert gains == group_gains(step, lambda: adamw(step), cut, PLAN, seed=7, task=0)
    assert gains != group_gains(step, lambda: adamw(step), batches, PLAN, seed=7, task=0)


def test_too_few_batches_for_the_trials(build_tiny, batches):
    step = make_step(build_tiny())
    with pytest.raises(ValueError, match=r'got 4 batches\. Raise max_steps'):
        group_gains(step, lambda: adamw(step), batches[:4], PLAN, seed=7, task=0)


def test_groups_that_lose_their_trial_never_move(make_runner, tmp_path):
    hook = {
        'type': 'mmforget.GroupSparseLoRAHook',
        'rank': 2,
        'sparsity': {'type': 'GroupTrial', 'strength': 1.0, 'steps': 2, 'held_out': 1},
    }
    runner = make_runner(tmp_path, custom_hooks=[hook], **NO_VALIDATION)
    before = {k: v.clone() for k, v in torch.load(runner._load_from)['state_dict'].items()}
    runner.train()
    row = json.loads((tmp_path / 'forgetting.json').read_text())['tasks'][0]
    living = [name for name, norm in row['groups'].items() if norm > 0]
    assert len(living) == 1 and len(row['groups']) == 4
    after = torch.load(tmp_path / 'task_1.pth', weights_only=True)['state_dict']
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert moved and all(k.startswith(living[0]) for k in moved)
    assert row['trainable'] == 2 * 2 * (16 + 32)
