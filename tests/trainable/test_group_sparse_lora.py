"""Group-sparse LoRA as a trainable part: what it injects, prunes, restores and folds."""

import math

import pytest
import torch
from torch import nn

from mmforget.adapters import LoRALinear, load_adapters, load_extra
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable import GroupSparseLoRA, drop_from_optimizer

BLOCKS = ['encoder.layers.0', 'encoder.layers.1', 'decoder.layers.0', 'decoder.layers.1']
TASK = ForgettingTask(0, ('bag',), ('coat',), ())


@pytest.fixture
def model(build_tiny):
    return build_tiny()


def injected(model, **arguments):
    part = GroupSparseLoRA(rank=2, **arguments)
    part.inject(model, TASK, seed=1)
    return part


def wake(part, scale=0.1):
    """Gives every adapter an effect."""
    torch.manual_seed(2)
    with torch.no_grad():
        for layer in part.adapters.values():
            layer.lora_B.normal_(0, scale)


def adapters_of(model):
    return [n for n, m in model.named_modules() if isinstance(m, LoRALinear)]


def test_only_the_adapters_are_trainable(model):
    keys = set(model.state_dict())
    part = injected(model)
    free = {n for n, p in model.named_parameters() if p.requires_grad}
    assert free == {f'{n}.lora_{m}' for n in adapters_of(model) for m in 'AB'}
    assert {id(p) for p in part.parameters()} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    assert set(model.state_dict()) - keys == free
    assert part.group_norms() == dict.fromkeys(BLOCKS, 0.0)


def test_the_seed_decides_the_adapters(build_tiny):
    first, again, other = (GroupSparseLoRA(rank=2) for _ in range(3))
    for part, seed in ((first, 1), (again, 1), (other, 2)):
        part.inject(build_tiny(), TASK, seed)
    for name, layer in first.adapters.items():
        assert torch.equal(layer.lora_A, again.adapters[name].lora_A)
        assert not torch.equal(layer.lora_A, other.adapters[name].lora_A)


def test_a_number_is_the_papers_penalty(model):
    """Alpha times the sum over blocks of the root of all squared entries of A and B."""
    part = injected(model, sparsity=3e-4)
    wake(part)
    want = 0.0
    for block in BLOCKS:
        own = [m for n, m in part.adapters.items() if n.startswith(f'{block}.')]
        assert len(own) == 2
        want += (
            sum(p.detach().square().sum().item() for m in own for p in (m.lora_A, m.lora_B)) ** 0.5
        )
    assert part.penalty(0).item() == pytest.approx(3e-4 * want, rel=1e-5)
    assert GroupSparseLoRA(rank=2).penalty(0) is None


def test_fold_adds_the_updates_and_leaves_a_plain_model(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    part = injected(model, alpha=4.0)
    wake(part)
    updates = {
        f'{n}.weight': 4.0 / 2 * (m.lora_B @ m.lora_A).detach() for n, m in part.adapters.items()
    }
    part.fold(model)
    assert adapters_of(model) == []
    after = model.state_dict()
    assert after.keys() == before.keys()
    for key, value in before.items():
        if key in updates:
            torch.testing.assert_close(after[key], value + updates[key])
            assert not torch.equal(after[key], value)
        else:
            assert torch.equal(after[key], value)


def test_group_norms_measure_the_update(model):
    part = injected(model)
    wake(part)
    for block, norm in part.group_norms().items():
        own = [m for n, m in part.adapters.items() if n.startswith(f'{block}.')]
        want = sum(m.delta().square().sum().item() for m in own) ** 0.5
        assert type(norm) is float and norm == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('group_by', ['block', 'adapter'])
def test_pruning_makes_the_layer_plain_again(model, group_by):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    part = injected(model, group_by=group_by)
    wake(part)
    names = list(part.groups)
    part.prune(names[:2])
    assert list(part.groups) == names[2:]
    gone = 4 if group_by == 'block' else 2
    assert len(adapters_of(model)) == len(part.adapters) == 8 - gone
    norms = part.group_norms()
    assert list(norms) == names
    assert [norm == 0 for norm in norms.values()] == [True, True] + [False] * (len(names) - 2)
    part.fold(model)
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert len(changed) == 8 - gone
    assert not any(k.startswith(tuple(names[:2])) for k in changed)


def test_single_matrices_as_groups(model):
    """An adapter lives only as long as both of its matrices do."""
    part = injected(model, group_by='matrix')
    wake(part)
    assert len(part.groups) == 16 and len(part.group_norms()) == 16
    first = next(iter(part.groups))
    part.prune([first])
    assert len(part.groups) == 14 and len(adapters_of(model)) == 7
    part.prune(list(part.groups)[:2])
    assert len(part.groups) == 12 and len(adapters_of(model)) == 6
    assert sum(norm == 0 for norm in part.group_norms().values()) == 4


def test_what_is_pruned_leaves_the_optimiser(model):
    part = injected(model)
    optimizer = torch.optim.AdamW(
        [{'params': [p], 'name': n} for n, p in model.named_parameters()], lr=0.1
    )
    drop_from_optimizer(optimizer, part.parameters())
    assert len(optimizer.param_groups) == 16
    for parameter in part.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    part.prune(BLOCKS[:1])
    drop_from_optimizer(optimizer, part.parameters())
    kept = {id(p) for p in part.parameters()}
    assert {id(p) for g in optimizer.param_groups for p in g['params']} == kept
    assert {id(p) for p in optimizer.state} == kept
    assert not any(g['name'].startswith(BLOCKS[0]) for g in optimizer.param_groups)


def test_restore_rebuilds_what_was_alive(model, build_tiny):
    part = injected(model)
    part.prune(BLOCKS[1:3])
    structure = part.structure()
    other = build_tiny()
    fresh = GroupSparseLoRA(rank=2)
    fresh.restore(other, TASK, 1, structure)
    assert list(fresh.groups) == [BLOCKS[0], BLOCKS[3]]
    assert adapters_of(other) == adapters_of(model)
    assert list(fresh.group_norms()) == BLOCKS, 'dead groups are still reported'
    assert other.state_dict().keys() == model.state_dict().keys()


def test_structure_is_plain(model, tmp_path):
    part = injected(model, sparsity={'type': 'GroupSelection', 'strength': 0.5})
    torch.save(part.structure(), tmp_path / 'structure.pth')
    structure = torch.load(tmp_path / 'structure.pth', weights_only=True)
    assert structure['alive'] == BLOCKS


def test_saved_adapters_hold_what_lives(model, tmp_path):
    part = injected(model, alpha=4.0)
    wake(part)
    part.prune(BLOCKS[:1])
    part.save(str(tmp_path / 'adapters'), 'base.pth')
    saved = load_adapters(tmp_path / 'adapters')
    assert set(saved) == set(part.adapters) and len(saved) == 6
    for name, entry in saved.items():
        torch.testing.assert_close(entry.delta(), part.adapters[name].delta().detach())
    assert load_extra(tmp_path / 'adapters')['groups'] == part.group_norms()


def test_nothing_to_adapt_is_an_error(model):
    with pytest.raises(ValueError, match="'fnn'"):
        injected(model, targets='fnn')


@pytest.mark.parametrize(
    ('sparsity', 'named'),
    [({'type': 'Nope'}, 'Nope'), ({'type': 'GroupSelection', 'power': 1}, 'power'), (-1.0, '-1')],
)
def test_wrong_sparsities_show_before_any_work(sparsity, named):
    with pytest.raises(ValueError, match=named):
        GroupSparseLoRA(sparsity=sparsity)


SCENARIO = ForgettingScenario.from_requests([['bag'], ['coat']], ('bag', 'coat', 'dress'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            {'rank': 0},
            r"rank=0 .*layer 'encoder.layers.0.ffn.layers.0.0'.*whole number from 1 to 16",
        ),
        (
            {'rank': 17},
            r'rank=17 .*\(32, 16\): expected a whole number from 1 to 16. Choose a smaller',
        ),
        ({'targets': 'fnn'}, "'fnn' matches no layer"),
        ({'group_by': 'layer'}, "by='layer'"),
        ({'sparsity': {'type': 'ChosenGroups', 'groups': ['encoder']}}, r"names \['encoder'\]"),
        ({'sparsity': {'type': 'ChosenGroups', 'groups': [BLOCKS, ['x']]}}, r"names \['x'\]"),
        ({'sparsity': {'type': 'RandomGroups', 'number': 5}}, 'number=5, but there are 4'),
    ],
)
def test_what_would_fail_in_a_task_is_found_by_a_check(model, arguments, message):
    """Also what would fail in a later task; the model stays as it was."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    part = GroupSparseLoRA(**{'rank': 2, **arguments})
    with pytest.raises(ValueError, match=message):
        part.check(model, SCENARIO)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_a_check_leaves_the_model_alone(model):
    before = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    part = GroupSparseLoRA(rank=16, sparsity={'type': 'RandomGroups', 'number': [4, 1]})
    part.check(model, SCENARIO)
    assert {name: (id(p), p.requires_grad) for name, p in model.named_parameters()} == before
    assert not part.adapters and not part.groups


class Block(nn.Module):
    """A feed-forward network of Deformable DETR R50's size."""

    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(256, 1024)
        self.linear2 = nn.Linear(1024, 256)


def test_the_authors_noise():
    """Its size is that of spec B.1: the first task begins with another detector."""
    first, later = (
        GroupSparseLoRA(rank=8, targets=['linear1', 'linear2'], group_by='adapter', init='authors')
        for _ in range(2)
    )
    first.inject(Block(), TASK, seed=3)
    for layer in first.adapters.values():
        change = layer.scaling * layer.lora_B @ layer.lora_A
        assert change.std().item() == pytest.approx(0.00135, rel=0.05)
        assert change.norm().item() == pytest.approx(0.69, rel=0.05)
    later.inject(Block(), ForgettingTask(1, ('bag',), ('coat',), ()), seed=3)
    for layer in later.adapters.values():
        assert not layer.lora_B.any()
        bound = math.sqrt(6 / (51 * layer.lora_A.shape[1]))
        assert 0.99 * bound < layer.lora_A.abs().max() <= bound


def test_an_unknown_init_is_refused():
    with pytest.raises(ValueError, match="init='zero'; expected 'lora'"):
        GroupSparseLoRA(init='zero')
