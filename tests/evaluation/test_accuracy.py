"""Accuracy by hand, pooled over the images of each set."""

import pytest
import torch

from mmforget.evaluation import ForgettingAccuracy
from mmforget.structures import ForgettingScenario

SCENARIO = ForgettingScenario.from_requests([['a'], ['b']], ['a', 'b', 'c', 'd'])


def measure(metric, found):
    """``found``: label -> what is predicted for each of its images."""
    samples = [
        {'gt_label': torch.tensor([label]), 'pred_scores': torch.eye(4)[guess]}
        for label, guesses in found.items()
        for guess in guesses
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_scores_of_two_tasks():
    metric = ForgettingAccuracy()
    metric.begin(SCENARIO)
    found = measure(metric, {0: [0, 0], 1: [1, 0], 2: [2, 2, 2, 0], 3: []})
    assert found == {'accuracy/top1': 6 / 8}
    assert metric.base['per_class'] == {'a': 1, 'b': 0.5, 'c': 0.75, 'd': None}
    metric.set_task(SCENARIO.tasks[0])
    measure(metric, {0: [1, 1], 1: [1, 1], 2: [2, 2, 0, 0], 3: []})
    last = metric.last
    assert (last.Acc_f, last.Acc_r, last.Acc_o, last.drop) == (0, 4 / 6, None, 1)
    assert last.H == pytest.approx(2 * (4 / 6) / (4 / 6 + 1))
    assert last.H_ceiling == pytest.approx(2 * (4 / 6) / (4 / 6 + 1)), '4 of 6 before, too'
    assert last.Acc_r_relative == 1
    metric.set_task(SCENARIO.tasks[1])
    found = measure(metric, {0: [0, 1], 1: [2, 2], 2: [2, 2, 2, 2], 3: []})
    assert metric.last.Acc_o == found['accuracy/Acc_o'] == 0.5
    assert metric.last.Acc_f == 0 and metric.last.drop == 0.5
    assert metric.row()['per_class']['c'] == [0.75, 1]


def test_top_k_and_without_a_loop():
    samples = [{'gt_label': torch.tensor([2]), 'pred_scores': torch.tensor([0.1, 0.5, 0.4])}]
    for topk, share in ((1, 0), (2, 1), (9, 1)):
        metric = ForgettingAccuracy(topk=topk)
        metric.process(None, samples)
        assert metric.evaluate(1) == {f'accuracy/top{topk}': share}


def test_bad_arguments():
    with pytest.raises(ValueError, match='topk=0'):
        ForgettingAccuracy(topk=0)
    with pytest.raises(RuntimeError, match='before begin'):
        ForgettingAccuracy().set_task(None)
    with pytest.raises(ValueError, match='no accuracy of a, b, c, d'):
        ForgettingAccuracy().begin(SCENARIO, {'per_class': {'x': 1}})
