"""Objectives of detection losses alone, relabelled or not."""

import pytest
import torch
from made_up_streams import TASK, context, stream, total
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmforget.methods import FORGET, RETAIN
from mmforget.methods.background_labels import BackgroundLabels
from mmforget.methods.fine_tuning import FineTuning
from mmforget.methods.gradient_ascent import GradientAscent
from mmforget.methods.random_labels import RandomLabels
from mmforget.methods.relabelling import Relabelling

FORGOTTEN = {'loss_cls': 2.0, 'loss_bbox': 0.5}
RETAINED = {'loss_cls': 0.7, 'loss_bbox': 0.2}


@pytest.mark.parametrize(
    ('method', 'want'),
    [
        (FineTuning(), 0.9),
        (GradientAscent(), -2.5),
        (GradientAscent(forget_weight=0.1, retain_weight=2), -0.25 + 1.8),
        (BackgroundLabels(), 0.9 + 2.5),
        (BackgroundLabels(retain_weight=3, forget_weight=0.5), 2.7 + 1.25),
        (RandomLabels(forget_weight=0), 0.9),
    ],
)
def test_totals(method, want):
    terms = method.losses(stream(**FORGOTTEN), stream(**RETAINED))
    assert total(terms).item() == pytest.approx(want, rel=1e-6)


def test_background_is_asked_of_the_tap_for_the_forget_stream_alone():
    method = BackgroundLabels()
    assert method.stream_options(FORGET).background
    assert not method.stream_options(RETAIN).background
    assert not RandomLabels().stream_options(FORGET).background


def sample(labels):
    return DetDataSample(
        gt_instances=InstanceData(labels=torch.tensor(labels), bboxes=torch.zeros(len(labels), 4))
    )


def test_random_labels_are_those_of_retained_classes():
    method = RandomLabels()
    method.before_task(TASK, context())
    samples = [sample([0] * 50)]
    assert method.targets(RETAIN, samples) is samples
    torch.manual_seed(0)
    (renamed,) = method.targets(FORGET, samples)
    assert set(renamed.gt_instances.labels.tolist()) == {1, 3}
    assert samples[0].gt_instances.labels.tolist() == [0] * 50, 'the data set keeps its own'
    torch.manual_seed(0)
    (again,) = method.targets(FORGET, samples)
    assert torch.equal(again.gt_instances.labels, renamed.gt_instances.labels)


def test_unknown_labels():
    with pytest.raises(ValueError, match="labels is 'noise'; expected one of 'background'"):
        Relabelling('noise')


@pytest.mark.parametrize('method', [GradientAscent, BackgroundLabels, RandomLabels])
def test_negative_weights(method):
    with pytest.raises(ValueError, match=f'{method.__name__} got forget_weight=-1'):
        method(forget_weight=-1)
