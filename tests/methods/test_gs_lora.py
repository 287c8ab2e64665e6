"""GS-LoRA's objective against the formulas of the paper, written out by hand."""

import pytest
import torch
from mmengine.structures import InstanceData

from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingScenario, ForgettingTask, StreamOutput


def stream(**losses):
    """A stream of one image with the given losses; the rest does not matter here."""
    return StreamOutput(
        losses={
            name.replace('__', '.'): torch.tensor(value, requires_grad=True)
            for name, value in losses.items()
        },
        logits=torch.zeros(1, 2, 3),
        boxes=torch.zeros(1, 2, 4),
        embeddings=torch.zeros(1, 2, 4),
        matches=[torch.zeros(0, 2)],
        targets=[InstanceData()],
    )


def task(index=0):
    return ForgettingTask(index, ('cat',), ('dog',), ())


def total(terms):
    """As mmengine's parse_losses: whatever has 'loss' in its name."""
    return sum(value for name, value in terms.items() if 'loss' in name)


RETAINED = {'loss_cls': 0.7, 'loss_bbox': 0.2, 'loss_iou': 0.4}


@pytest.mark.parametrize(
    ('cls', 'pushed'),
    [(4.0, 15.0 - 4.0), (14.9, 15.0 - 14.9), (15.0, 0.0), (31.0, 0.0)],
)
def test_total_is_the_formula(cls, pushed):
    """L_retain + beta (ReLU(BND - 2 L_cls) + 5 L_L1 + 2 L_GIoU), below and beyond the bound."""
    method = GSLoRA(forget_weight=0.15, bound=15)
    method.before_task(task(), None)
    forget = stream(loss_cls=cls, loss_bbox=0.3, loss_iou=0.5)
    terms = method.losses(forget, stream(**RETAINED))
    want = (0.7 + 0.2 + 0.4) + 0.15 * (pushed + 0.3 + 0.5)
    assert total(terms).item() == pytest.approx(want, rel=1e-6)
    assert terms['forget_cls'].item() == pytest.approx(cls), 'logged as it is, not added'
    assert not terms['forget_cls'].requires_grad


@pytest.mark.parametrize(('cls', 'slope'), [(4.0, -0.15), (15.5, 0.0), (100.0, 0.0)])
def test_gradients(cls, slope):
    """The class term is pushed up until the bound; boxes are still learnt, also beyond it."""
    method = GSLoRA(forget_weight=0.15, bound=15)
    forget, retain = stream(loss_cls=cls, loss_bbox=0.3, loss_iou=0.5), stream(**RETAINED)
    total(method.losses(forget, retain)).backward()
    assert forget.losses['loss_cls'].grad.item() == pytest.approx(slope)
    assert forget.losses['loss_bbox'].grad.item() == pytest.approx(0.15)
    assert forget.losses['loss_iou'].grad.item() == pytest.approx(0.15)
    assert all(value.grad.item() == 1 for value in retain.losses.values())


def test_weights():
    method = GSLoRA(forget_weight=2.0, bound=10, retain_weight=3.0, box_weight=0.5)
    terms = method.losses(stream(loss_cls=4.0, loss_bbox=0.3, loss_iou=0.5), stream(**RETAINED))
    assert total(terms).item() == pytest.approx(3 * 1.3 + 2 * (6 + 0.5 * 0.8), rel=1e-6)


def test_without_forgetting_only_the_retain_loss_is_left():
    method = GSLoRA(forget_weight=0)
    forget, retain = stream(loss_cls=4.0, loss_bbox=0.3, loss_iou=0.5), stream(**RETAINED)
    objective = total(method.losses(forget, retain))
    assert objective.item() == pytest.approx(1.3)
    objective.backward()
    assert all(value.grad.item() == 0 for value in forget.losses.values())


def test_every_layer_has_its_own_bound():
    """One layer beyond the bound does not stop the others from forgetting."""
    method = GSLoRA(forget_weight=0.1, bound=5, auxiliary=True)
    forget = stream(
        loss_cls=7.0,
        loss_bbox=0.3,
        loss_iou=0.5,
        d0__loss_cls=2.0,
        d0__loss_bbox=0.6,
        d0__loss_iou=0.7,
    )
    objective = total(method.losses(forget, stream(**RETAINED)))
    assert objective.item() == pytest.approx(
        1.3 + 0.1 * (0 + 0.3 + 0.5 + (5 - 2) + 0.6 + 0.7), rel=1e-6
    )
    objective.backward()
    assert forget.losses['loss_cls'].grad.item() == 0
    assert forget.losses['d0.loss_cls'].grad.item() == pytest.approx(-0.1)


def test_one_weight_per_task():
    method = GSLoRA(forget_weight=[0.1, 0.4])
    for index, beta in enumerate((0.1, 0.4)):
        method.before_task(task(index), None)
        terms = method.losses(stream(loss_cls=4.0, loss_bbox=0.0, loss_iou=0.0), stream(**RETAINED))
        assert total(terms).item() == pytest.approx(1.3 + beta * 11, rel=1e-6)
    with pytest.raises(ValueError, match='2 forget weights.*task number 3'):
        method.before_task(task(2), None)


def test_forget_weights_are_counted_before_any_work():
    scenario = ForgettingScenario.from_requests(
        [['cat'], ['dog'], ['cow']], ('cat', 'dog', 'cow', 'owl')
    )
    for fitting in (0.1, [0.1], [0.1, 0.2, 0.3]):
        GSLoRA(forget_weight=fitting).check(scenario)
    with pytest.raises(ValueError, match='2 forget weights.*task number 3.*one per task'):
        GSLoRA(forget_weight=[0.1, 0.4]).check(scenario)


def test_what_it_asks_of_the_streams():
    """Matched queries only concerns what is forgotten: the retain loss stays mmdet's own."""
    plain, special = GSLoRA(), GSLoRA(matched_only=True, auxiliary=True)
    for name in (FORGET, RETAIN):
        assert not plain.stream_options(name).matched_only
        assert not plain.stream_options(name).auxiliary
        assert special.stream_options(name).auxiliary
    assert special.stream_options(FORGET).matched_only
    assert not special.stream_options(RETAIN).matched_only
    strict = GSLoRA(true_class_only=True)
    assert strict.stream_options(FORGET).true_class_only
    assert strict.stream_options(FORGET).matched_only
    assert not strict.stream_options(RETAIN).true_class_only
    assert strict.stream_options(FORGET).bound is None
    odds = GSLoRA(log_odds=True).stream_options(FORGET)
    assert odds.log_odds and odds.true_class_only
    assert not GSLoRA(log_odds=True).stream_options(RETAIN).log_odds
    each = GSLoRA(bound=6, bound_each=True)
    assert each.stream_options(FORGET).bound == 6
    assert each.stream_options(FORGET).matched_only
    assert each.stream_options(RETAIN).bound is None


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        ({'forget_weight': -0.1}, 'forget_weight=-0.1'),
        ({'forget_weight': []}, r'forget_weight=\[\]'),
        ({'forget_weight': [0.1, -1]}, r'forget_weight=\[0.1, -1\]'),
        ({'bound': 0}, 'bound=0'),
        ({'retain_weight': -1}, 'retain_weight=-1'),
        ({'box_weight': -1}, 'box_weight=-1'),
    ],
)
def test_clear_errors(arguments, named):
    with pytest.raises(ValueError, match=named):
        GSLoRA(**arguments)


def test_proposals_of_two_stage_detectors_keep_their_sign():
    """``enc_loss_cls`` tells objects from background: the detector goes on localising."""
    import torch

    def output(**losses):
        return StreamOutput({k: torch.tensor(v) for k, v in losses.items()}, *[None] * 5)

    terms = GSLoRA(forget_weight=0.5, bound=15).losses(
        output(loss_cls=1.0, enc_loss_cls=3.0), output(loss_cls=2.0)
    )
    assert terms['loss_forget_enc_cls'].item() == 1.5
    assert terms['loss_forget_cls'].item() == 7.0
