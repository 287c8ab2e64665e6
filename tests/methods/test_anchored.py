"""Weights tied to what they were: the parabola, and how much each weight matters."""

import pytest
import torch
from made_up_streams import TASK, context, stream, total
from torch import nn

from mmforget.methods import Measurement
from mmforget.methods.anchor import WeightAnchor
from mmforget.methods.ewc import EWC
from mmforget.methods.l2 import L2
from mmforget.methods.mas import MAS
from mmforget.structures import StreamOutput

FORGOTTEN, RETAINED = {'loss_cls': 2.0}, {'loss_cls': 0.7}


def test_a_sum_of_parabolas_is_one():
    """Gradients are those of the sum over all snapshots; values differ by a constant."""
    draw = torch.Generator().manual_seed(0)
    snapshots = [torch.randn(5, generator=draw) for _ in range(3)]
    importances = [torch.rand(5, generator=draw) for _ in range(3)]
    importances[1][2] = 0
    anchor = WeightAnchor()
    for weight, importance in zip(snapshots, importances, strict=True):
        anchor.add({'w': weight}, {'w': importance})
    values, gradients = [], []
    for _ in range(2):
        weight = torch.randn(5, generator=draw, requires_grad=True)
        found = anchor.penalty({'w': weight})
        want = sum(
            (o * (weight - s).square()).sum() for o, s in zip(importances, snapshots, strict=True)
        )
        values.append((want - found).item())
        gradients.append([torch.autograd.grad(x, weight)[0] for x in (found, want)])
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    for found, want in gradients:
        torch.testing.assert_close(found, want)


def test_online_the_last_snapshot_counts():
    anchor = WeightAnchor(online=True)
    for value in (1.0, 5.0):
        anchor.add({'w': torch.full((2,), value)}, {'w': 1.0})
    assert anchor.penalty({'w': torch.full((2,), 7.0)}).item() == 8
    assert anchor.penalty({'other': torch.ones(2)}).item() == 0


class Linear(Measurement):
    """Images are rows of x; a loss is (x·w)² and the logits are x·w."""

    def __init__(self, batches):
        self.weights = {'w': nn.Parameter(torch.tensor([0.5, -1.0]))}
        self.batches = batches

    def outputs(self, stream, each=False):
        assert stream == 'retain'
        for batch in self.batches:
            scores = batch @ self.weights['w']
            parts = scores.split(1) if each else [scores]
            yield [
                StreamOutput(
                    losses={'loss_cls': part.square().mean()},
                    targets=[None] * len(part),
                    logits=part[:, None, None],
                )
                for part in parts
            ]


BATCHES = [torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[0.0, 3.0], [1.0, 1.0]])]


def gradient(images):
    """Of the mean of (x·w)² over some images."""
    weight = torch.tensor([0.5, -1.0], requires_grad=True)
    return torch.autograd.grad((images @ weight).square().mean(), weight)[0]


def test_fisher_of_images():
    method = EWC(fisher='image')
    want = torch.stack([gradient(x[None]).square() for batch in BATCHES for x in batch]).mean(0)
    torch.testing.assert_close(method.importance(Linear(BATCHES))['w'], want)


def test_fisher_of_batches():
    """The authors' estimate: the mean batch's squared gradient times its size."""
    want = torch.stack([2 * gradient(batch).square() for batch in BATCHES]).mean(0)
    torch.testing.assert_close(EWC(fisher='batch').importance(Linear(BATCHES))['w'], want)


def test_mas():
    want = torch.stack([gradient(batch).abs() for batch in BATCHES]).mean(0)
    torch.testing.assert_close(MAS().importance(Linear(BATCHES))['w'], want)


def test_the_penalty_joins_the_losses_and_survives():
    method = L2(strength=0.5)
    method.measure(TASK, Linear(BATCHES))
    moved = {'w': torch.tensor([1.5, 1.0], requires_grad=True)}
    fresh = L2(strength=0.5)
    fresh.load_state_dict(method.state_dict())
    for own in (method, fresh):
        own.before_task(TASK, context(moved))
        terms = own.losses(stream(**FORGOTTEN), stream(**RETAINED))
        assert total(terms).item() == pytest.approx(2.7 + 0.5 * (1 + 4))


@pytest.mark.parametrize(
    ('build', 'named'),
    [
        (lambda: L2(strength=-1), 'L2 got strength=-1'),
        (lambda: EWC(fisher='pixel'), "fisher='pixel'"),
        (lambda: EWC(batches=0), 'batches=0'),
        (lambda: MAS(batches=0), 'batches=0'),
        (lambda: EWC(labels='noise'), "labels is 'noise'"),
    ],
)
def test_bad_arguments(build, named):
    with pytest.raises(ValueError, match=named):
        build()
