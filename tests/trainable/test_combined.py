"""Two sets of adapters at once: each with its own rank and sparsity, neither freezes the other."""

import pytest
import torch

from mmforget.adapters import load_adapters
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable import CombinedParts, GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('coat',), ())
SCENARIO = ForgettingScenario(('bag', 'coat'), (TASK,))
TRIAL = dict(type='GroupTrial', steps=2)


@pytest.fixture
def model(build_tiny):
    return build_tiny()


def make(encoder=None, decoder=None):
    return CombinedParts(
        [
            GroupSparseLoRA(2, within='encoder', **(encoder or {})),
            GroupSparseLoRA(3, within='decoder', **(decoder or {})),
        ]
    )


def injected(model, **options):
    part = make(**options)
    part.check(model, SCENARIO)
    part.inject(model, TASK, 0)
    return part


def ranks(part):
    return {p.shape[0] for p in part.parameters() if p.shape[0] < 4}


def test_both_are_trained_with_their_own_rank(model):
    before = model.bbox_head.cls_branches[0].weight
    part = injected(model)
    assert part.group_names == [f'{p}.layers.{i}' for p in ('encoder', 'decoder') for i in (0, 1)]
    assert all(p.requires_grad for p in part.parameters()) and ranks(part) == {2, 3}
    assert not before.requires_grad
    assert sum(p.requires_grad for p in model.parameters()) == len(part.parameters()) == 16
    part.fold(model)
    assert not part.parameters()


def test_penalties_add_up_and_only_their_own_part_is_pruned(model):
    strong = dict(sparsity=dict(type='GroupSelection', strength=0.999, window=1.0))
    part = injected(model, encoder=strong, decoder=dict(sparsity=0.5))
    assert part.penalty(0) == part.parts[1].penalty(0)
    assert set(part.optimizers) == {'Adam', 'AdamW'}
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-3)
    for step in (1, 2):
        for index, parameter in enumerate(part.parameters()):
            parameter.grad = torch.full_like(parameter, 1.0 / (1 + index))
        optimizer.step()
        part.after_step(optimizer, step, 2)
    assert len(part.parts[0].groups) == 1 and len(part.parts[1].groups) == 2
    held = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert held == {id(p) for p in part.parameters()}


def test_trials_go_through_the_groups_of_both(model):
    part = injected(model, encoder=dict(sparsity=TRIAL), decoder=dict(sparsity=TRIAL))
    assert part.trial.steps == 2
    part.restart(['encoder.layers.1'])
    assert len(part.parameters()) == 4 and all(p.requires_grad for p in part.parameters())
    part.choose_groups({'decoder.layers.1': 1.0, 'decoder.layers.0': 0.1, 'encoder.layers.1': 0.5})
    norms = part.group_norms()
    assert list(norms) == list(part.group_names)
    assert [list(own.groups) for own in part.parts] == [['encoder.layers.1'], ['decoder.layers.1']]
    with pytest.raises(ValueError, match='in 2 ways'):
        make(dict(sparsity=TRIAL), dict(sparsity={**TRIAL, 'steps': 3}))


def test_a_part_without_trials_lives_whole_after_them(model):
    part = injected(model, encoder=dict(sparsity=TRIAL))
    part.restart(['encoder.layers.0'])
    part.choose_groups({'encoder.layers.1': 1.0, 'encoder.layers.0': 0.0})
    assert [len(own.groups) for own in part.parts] == [1, 2]


def test_structure_is_restored_and_adapters_saved_together(model, build_tiny, tmp_path):
    part = injected(model, encoder=dict(sparsity=TRIAL), decoder=dict(sparsity=TRIAL))
    part.restart(['encoder.layers.1', 'decoder.layers.0'])
    part.save(str(tmp_path / 'adapters'), 'base')
    saved = load_adapters(tmp_path / 'adapters')
    assert {name.split('.ffn')[0] for name in saved} == {'encoder.layers.1', 'decoder.layers.0'}
    other, again = build_tiny(), make(dict(sparsity=TRIAL), dict(sparsity=TRIAL))
    again.restore(other, TASK, 0, part.structure())
    assert [p.shape for p in again.parameters()] == [p.shape for p in part.parameters()]
    assert all(p.requires_grad for p in again.parameters())


def test_layers_that_two_parts_name(model):
    part = CombinedParts([GroupSparseLoRA(within='encoder'), GroupSparseLoRA()])
    with pytest.raises(ValueError, match=r"both name the layer 'encoder\.layers\.0"):
        part.check(model, SCENARIO)
    with pytest.raises(ValueError, match="within='beckbone'.*backbone"):
        GroupSparseLoRA(within='beckbone').check(model, SCENARIO)
