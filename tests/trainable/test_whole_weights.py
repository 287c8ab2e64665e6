"""Whole weights as a trainable part: what moves, what stays, what is drawn anew or dropped."""

import logging

import pytest
import torch
from mmdet.registry import MODELS

from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.testing import tiny_detector
from mmforget.trainable import RandomDrop, Reinitialised, WholeWeights

TASK = ForgettingTask(0, ('bag',), ('coat',), ())
SCENARIO = ForgettingScenario.from_requests([['bag']], ['bag', 'coat'])


@pytest.fixture
def model(build_tiny):
    return build_tiny()


def build():
    """A detector that is not initialised yet."""
    return MODELS.build(tiny_detector())


def free(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model, before):
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


@pytest.mark.parametrize(
    ('frozen', 'stays'),
    [
        ((), ()),
        ('heads', ('bbox_head.',)),
        ([r'backbone\..*', r'neck\..*'], ('backbone.', 'neck.')),
    ],
    ids=['nothing', 'heads', 'regexes'],
)
def test_what_moves(model, frozen, stays):
    everything, before = free(model), copied(model)
    part = WholeWeights(frozen)
    part.check(model, SCENARIO)
    named = part.moving(model)
    part.inject(model, TASK, seed=0)
    want = {name for name in everything if not name.startswith(tuple(stays) or ('none',))}
    assert set(named) == free(model) == set(part.weights()) == want
    assert {id(p) for p in part.parameters()} == {
        id(p) for name, p in model.named_parameters() if name in want
    }
    part.fold(model)
    assert free(model) == everything and not changed(model, before)
    assert part.parameters() == []


def test_what_the_detector_freezes_stays_frozen(model):
    model.backbone.conv1.conv.weight.requires_grad_(False)
    part = WholeWeights(())
    part.inject(model, TASK, seed=0)
    assert 'backbone.conv1.conv.weight' not in free(model)
    part.fold(model)
    assert 'backbone.conv1.conv.weight' not in free(model)


@pytest.mark.parametrize(
    ('part', 'named'),
    [
        (WholeWeights([r'trunk\..*']), r'trunk\\\\..*.* matches no parameter'),
        (WholeWeights('.*'), 'freezes all'),
        (Reinitialised(build, 'trunk'), "no part 'trunk'; it has .*backbone"),
    ],
)
def test_bad_arguments(model, part, named):
    with pytest.raises(ValueError, match=named):
        part.check(model, SCENARIO)


def test_reinitialised_weights_are_those_of_another_seed(model, build_tiny):
    before = copied(model)
    part = Reinitialised(build, kept='backbone')
    part.check(model, SCENARIO)
    part.inject(model, TASK, seed=5)
    first = copied(model)
    drawn = changed(model, before)
    assert not any(name.startswith('backbone.') for name in drawn)
    # All matrices differ, of query embeddings as well; what begins at a constant has its constant.
    whole = {name for name, p in model.named_parameters() if p.dim() > 1 and 'backbone' not in name}
    constants = {n for n in whole if model.state_dict()[n].unique().numel() == 1}
    assert whole - constants <= drawn
    assert free(model) == {n for n, _ in model.named_parameters() if n in free(build_tiny())}

    again, other = build_tiny(), build_tiny()
    Reinitialised(build, kept='backbone').inject(again, TASK, seed=5)
    assert not changed(again, first)
    Reinitialised(build, kept='backbone').inject(other, TASK, seed=6)
    assert changed(other, first)


def test_what_begins_at_a_constant_begins_at_it_again(model):
    fresh = build()
    logging.disable(logging.INFO)
    fresh.init_weights()
    logging.disable(logging.NOTSET)
    Reinitialised(build).inject(model, TASK, seed=0)
    for name, value in model.state_dict().items():
        want = fresh.state_dict()[name]
        if want.unique().numel() == 1:
            assert value.equal(want), name
        elif want.numel() > 200:
            torch.testing.assert_close(value.std(), want.std(), rtol=0.3, atol=0)


def test_drawing_anew_leaves_the_global_generator_alone(model):
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    Reinitialised(build).inject(model, TASK, seed=0)
    assert torch.rand(2).equal(want)


def test_random_drop(model, build_tiny):
    before = copied(model)
    RandomDrop(share=0.5).inject(model, TASK, seed=1)
    dropped = []
    for name, parameter in model.named_parameters():
        gone = (parameter == 0) & (before[name] != 0)
        assert torch.equal(parameter[~gone], before[name][~gone])
        if parameter.numel() > 200:
            dropped.append(float(gone.float().mean()))
    assert max(dropped) < 0.6 and min(dropped) < 0.15 and max(dropped) > 0.35
    buffers = {name for name, _ in model.named_buffers()}
    assert not buffers & changed(model, before)
    again = build_tiny()
    RandomDrop(share=0.5).inject(again, TASK, seed=1)
    assert not changed(again, copied(model))
    with pytest.raises(ValueError, match='share=0'):
        RandomDrop(share=0)
