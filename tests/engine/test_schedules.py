"""Ordinary ``param_scheduler`` configs, fitted to a budget in steps, and the rates they give."""

import math

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mmforget.engine.schedules import fit_schedulers, keep_base_values

# As in mmdet's configs: warm-up by iteration, drops by epoch.
MMDET_1X = [
    {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': 500},
    {
        'type': 'MultiStepLR',
        'begin': 0,
        'end': 12,
        'by_epoch': True,
        'milestones': [8, 11],
        'gamma': 0.1,
    },
]


def rates(configs, steps, base=1.0):
    """The learning rate of each step under mmengine's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    schedulers = [
        PARAM_SCHEDULERS.build(
            {**config, '_scope_': 'mmengine'}, default_args={'optimizer': optimizer}
        )
        for config in configs
    ]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


def test_mmdets_standard_schedule():
    """Drops at 8/12 and 11/12 of the budget; the warm-up keeps its 500 iterations."""
    fitted = fit_schedulers(MMDET_1X, 1200)
    assert all(config['by_epoch'] is False for config in fitted)
    assert fitted[1]['milestones'] == [800, 1100] and fitted[1]['end'] == 1200
    seen = rates(fitted, 1200)
    assert seen[0] == pytest.approx(0.001)
    assert seen[250] == pytest.approx(0.5, abs=0.01)
    assert seen[500:799] == pytest.approx([1.0] * 299)
    assert seen[801:1099] == pytest.approx([0.1] * 298)
    assert seen[1101:] == pytest.approx([0.01] * 99)


def test_one_milestone_without_an_explicit_unit():
    """Deformable DETR's: epoch 40 of 50; ``by_epoch`` is True where it is left out."""
    (fitted,) = fit_schedulers({'type': 'MultiStepLR', 'end': 50, 'milestones': [40]}, 2000)
    assert fitted['milestones'] == [1600] and fitted['end'] == 2000
    seen = rates([fitted], 2000)
    assert seen[1500] == 1.0 and seen[1700] == pytest.approx(0.1)


def test_warm_up_longer_than_the_budget():
    (fitted,) = fit_schedulers(MMDET_1X[:1], 100)
    assert fitted['end'] == 100
    seen = rates([fitted], 101)
    assert seen[0] == pytest.approx(0.001) and seen[-1] == pytest.approx(1.0)


def test_cosine_ends_with_the_task():
    (fitted,) = fit_schedulers([{'type': 'CosineAnnealingLR', 'by_epoch': False}], 10)
    assert (fitted['T_max'], fitted['end']) == (10, 10)
    want = [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]
    assert rates([fitted], 10) == pytest.approx(want)


def test_warm_up_and_cosine_by_epoch():
    """A cosine from epoch 2 to 10 spans the last four fifths."""
    configs = [
        {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': True, 'begin': 0, 'end': 2},
        {'type': 'CosineAnnealingLR', 'by_epoch': True, 'begin': 2, 'end': 10, 'T_max': 8},
    ]
    warm, cosine = fit_schedulers(configs, 100)
    assert (warm['begin'], warm['end']) == (0, 20)
    assert (cosine['begin'], cosine['end'], cosine['T_max']) == (20, 100, 80)
    seen = rates([warm, cosine], 100)
    assert seen[0] == pytest.approx(0.1) and max(seen) == pytest.approx(1.0, rel=0.01)
    assert seen[60] == pytest.approx(0.5, abs=0.03)
    assert 0 < seen[99] < 0.002


def test_cosine_made_for_another_length():
    long = {'type': 'CosineAnnealingLR', 'by_epoch': False, 'T_max': 90000, 'end': 90000}
    (fitted,) = fit_schedulers([long], 50)
    seen = rates([fitted], 50)
    assert seen[25] == pytest.approx(0.5) and 0 < seen[49] < 0.002


def test_convert_to_iter_based_is_done_already():
    config = {
        'type': 'CosineAnnealingLR',
        'by_epoch': True,
        'T_max': 12,
        'convert_to_iter_based': True,
    }
    (fitted,) = fit_schedulers(config, 24)
    assert 'convert_to_iter_based' not in fitted and fitted['T_max'] == 24


def test_what_begins_beyond_the_budget_is_left_out():
    late = {'type': 'CosineAnnealingLR', 'by_epoch': False, 'begin': 300, 'T_max': 100}
    assert fit_schedulers([late, {'type': 'ConstantLR', 'by_epoch': False}], 200) == [
        {'type': 'ConstantLR', 'by_epoch': False, 'end': 200}
    ]


def test_nothing_to_fit_and_nothing_changed():
    assert fit_schedulers(None, 10) == []
    before = [dict(config) for config in MMDET_1X]
    fit_schedulers(MMDET_1X, 10)
    assert before == MMDET_1X


def test_a_group_that_leaves_takes_its_base_value_with_it():
    """The others go on to the ends that they would have reached."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD(
        [{'params': [p], 'lr': lr} for p, lr in zip(parameters, (1.0, 0.1, 0.01), strict=True)],
        lr=1.0,
    )
    config = {'type': 'CosineAnnealingLR', 'T_max': 10, 'eta_min_ratio': 0.1, 'by_epoch': False}
    scheduler = PARAM_SCHEDULERS.build(
        {**config, '_scope_': 'mmengine'}, default_args={'optimizer': optimizer}
    )
    for step in range(10):
        optimizer.step()
        if step == 3:
            before = list(optimizer.param_groups)
            del optimizer.param_groups[0]
            keep_base_values([scheduler], before, optimizer.param_groups)
        scheduler.step()
    assert [g['lr'] for g in optimizer.param_groups] == pytest.approx([0.01, 0.001])
