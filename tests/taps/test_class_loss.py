"""What a class loss counts, against the same losses on hand-picked predictions."""

import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, QualityFocalLoss
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from mmforget.taps import StreamOptions
from mmforget.taps.class_loss import counting

MATCHED = StreamOptions(matched_only=True)
TRUE_CLASS = StreamOptions(matched_only=True, true_class_only=True)
LABELS = torch.tensor([2, 3, 0, 3, 3])  # three classes, 3 is the background


class Head(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss_cls = loss


def of_head(loss, options, scores, target, *, mean=False, **kwargs):
    head = Head(loss)
    with counting([head], options, mean):
        assert head.loss_cls.loss_weight == loss.loss_weight, 'what heads ask of their loss'
        value = head.loss_cls(scores, target, **kwargs)
    assert head.loss_cls is loss
    return value


def test_without_options_the_loss_is_not_touched():
    head = Head(FocalLoss())
    loss = head.loss_cls
    with counting([head], StreamOptions(), True):
        assert head.loss_cls is loss


def test_softmax_of_matched_predictions_is_their_mean():
    scores = torch.randn(5, 4, requires_grad=True)
    weights = torch.ones(5)
    found = of_head(
        CrossEntropyLoss(), MATCHED, scores, LABELS, mean=True, weight=weights, avg_factor=5
    )
    rows = [0, 2]
    torch.testing.assert_close(found, cross_entropy(scores[rows], LABELS[rows]))
    (grad,) = torch.autograd.grad(found, scores)
    assert (grad[[1, 3, 4]] == 0).all()


def test_nothing_matched_gives_zero():
    labels = torch.full((5,), 3)
    found = of_head(CrossEntropyLoss(), MATCHED, torch.randn(5, 4), labels, mean=True, avg_factor=5)
    assert found == 0


@pytest.mark.parametrize('with_weight', [False, True])
def test_sigmoids_of_matched_predictions(with_weight):
    scores = torch.randn(5, 3)
    loss = FocalLoss()
    weight = torch.tensor([1.0, 1, 0.5, 1, 1]) if with_weight else None
    found = of_head(loss, MATCHED, scores, LABELS, weight=weight, avg_factor=2.0)
    rows = [0, 2]
    own = weight[rows] if with_weight else None
    torch.testing.assert_close(found, loss(scores[rows], LABELS[rows], own, avg_factor=2.0))


def test_true_class_alone():
    """As if each matched prediction had one score, that of its class."""
    scores = torch.randn(5, 3, requires_grad=True)
    found = of_head(FocalLoss(), TRUE_CLASS, scores, LABELS, avg_factor=2.0)
    probability = scores.detach().sigmoid()[[0, 2], LABELS[[0, 2]]]
    want = (0.25 * (1 - probability) ** 2 * -probability.log()).sum() / 2
    torch.testing.assert_close(found, want)
    (grad,) = torch.autograd.grad(found, scores)
    true = one_hot(LABELS, 4)[:, :3].bool()
    assert (grad[true] != 0).all() and (grad[~true] == 0).all()


def test_a_bound_for_each_matched_prediction():
    scores = torch.tensor([[0.0, 0, 9, 0]] * 2 + [[0.0, 0, 1, 0]] * 3, requires_grad=True)
    options = StreamOptions(matched_only=True, bound=2.0)
    loss = CrossEntropyLoss(loss_weight=0.5)
    found = of_head(loss, options, scores, LABELS, mean=True, weight=torch.ones(5), avg_factor=5)
    each = 0.5 * cross_entropy(scores.detach(), LABELS, reduction='none')[[0, 2]]
    assert each[0] < 2
    torch.testing.assert_close(found, each.clamp(max=2).mean())
    low = of_head(
        loss, StreamOptions(matched_only=True, bound=0.5), scores, LABELS, mean=True, avg_factor=5
    )
    (grad,) = torch.autograd.grad(low, scores)
    assert (grad[0] != 0).any() and (grad[1:] == 0).all(), 'no push beyond the bound'


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_a_bound_leaves_the_average_to_the_head(reduction):
    scores = torch.randn(5, 3)
    far = StreamOptions(true_class_only=True, bound=1e6)
    for given in ({'avg_factor': 2.0}, {}):
        if given and reduction == 'sum':
            continue
        loss = FocalLoss(reduction=reduction)
        found = of_head(loss, far, scores, LABELS, **given)
        want = of_head(loss, TRUE_CLASS, scores, LABELS, **given)
        # Without a factor MMDetection's mean is over all predictions, ours over the matched.
        scale = 1 if given or reduction == 'sum' else want.new_tensor(5 * 3 / 2)
        torch.testing.assert_close(found, want * scale)


def test_a_bound_is_for_matched_predictions():
    with pytest.raises(ValueError, match='bound=2.*matched_only=True'):
        StreamOptions(bound=2.0)


@pytest.mark.parametrize('sigmoid', [True, False])
def test_log_odds_push_all_matched_predictions_alike(sigmoid):
    scores = torch.randn(5, 3 if sigmoid else 4, requires_grad=True)
    loss = FocalLoss() if sigmoid else CrossEntropyLoss()
    odds = StreamOptions(true_class_only=True, log_odds=True)
    found = of_head(loss, odds, scores, LABELS, weight=torch.ones(5), avg_factor=7.0)
    own = torch.stack([scores[0, 2], scores[2, 0]])
    own = own if sigmoid else own - scores[[0, 2], 3]
    torch.testing.assert_close(found, -own.mean())
    (gradient,) = torch.autograd.grad(found, scores)
    assert gradient[0, 2] == gradient[2, 0] == -0.5
    assert (gradient[[1, 3, 4]] == 0).all()

    bound = float(-own.detach().mean())
    low = StreamOptions(true_class_only=True, log_odds=True, bound=bound)
    capped = of_head(loss, low, scores, LABELS)
    torch.testing.assert_close(capped, (-own).clamp(max=bound).mean())
    nothing = of_head(loss, odds, scores, torch.full((5,), 3))
    assert nothing == 0 and nothing.requires_grad
    with pytest.raises(ValueError, match='log_odds=True.*true_class_only=True'):
        StreamOptions(log_odds=True)


def test_log_odds_of_probabilities():
    """Some heads give their loss probabilities."""
    loss = QualityFocalLoss(use_sigmoid=True, activated=True)
    odds = StreamOptions(true_class_only=True, log_odds=True)
    logits = torch.randn(5, 3)
    found = of_head(loss, odds, logits.sigmoid(), (LABELS, torch.ones(5)))
    torch.testing.assert_close(found, -(logits[0, 2] + logits[2, 0]) / 2)


def test_labels_with_their_quality():
    """GFL and RTMDet: labels, and how good each box is."""
    scores = torch.randn(5, 3)
    quality = torch.tensor([0.5, 0, 0.8, 0, 0])
    loss = QualityFocalLoss(use_sigmoid=True)
    found = of_head(
        loss, TRUE_CLASS, scores, (LABELS, quality), weight=torch.ones(5), avg_factor=1.0
    )
    rows = [0, 2]
    probability = scores[rows, LABELS[rows]].sigmoid()
    own = quality[rows]
    entropy = -own * probability.log() - (1 - own) * (1 - probability).log()
    torch.testing.assert_close(found, (entropy * (own - probability).abs() ** 2).sum())


def test_scores_of_every_class_as_target():
    """YOLOX: matched predictions alone, one-hot targets scaled by overlap."""
    scores, target = torch.randn(2, 3), torch.tensor([[0, 0.7, 0], [0.4, 0, 0]])
    loss = CrossEntropyLoss(use_sigmoid=True, reduction='sum')
    found = of_head(loss, TRUE_CLASS, scores, target)
    want = sum(
        nn.functional.binary_cross_entropy_with_logits(scores[i, c], target[i, c])
        for i, c in ((0, 1), (1, 0))
    )
    torch.testing.assert_close(found, want)


BACKGROUND = StreamOptions(background=True)
NOTHING = torch.full((5,), 3)


@pytest.mark.parametrize('weight', [None, torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0])])
def test_all_predictions_as_background(weight):
    """As the loss is where no object is; what has no label keeps none."""
    labels = torch.tensor([2, 3, 0, -1, 3])
    want = torch.tensor([3, 3, 3, -1, 3])
    scores = torch.randn(5, 4)
    softmax = CrossEntropyLoss(ignore_index=-1)
    found = of_head(softmax, BACKGROUND, scores, labels, weight=weight, avg_factor=4)
    torch.testing.assert_close(found, softmax(scores, want, weight, avg_factor=4))


def test_sigmoids_as_background():
    scores, loss = torch.randn(5, 3), FocalLoss()
    found = of_head(loss, BACKGROUND, scores, LABELS, avg_factor=2)
    torch.testing.assert_close(found, loss(scores, NOTHING, avg_factor=2))
    quality = QualityFocalLoss()
    target = (LABELS, torch.tensor([0.7, 0, 0.4, 0, 0]))
    found = of_head(quality, BACKGROUND, scores, target, avg_factor=2)
    torch.testing.assert_close(found, quality(scores, (NOTHING, torch.zeros(5)), avg_factor=2))
    dense = one_hot(LABELS, 4)[:, :3].float()
    plain = CrossEntropyLoss(use_sigmoid=True)
    found = of_head(plain, BACKGROUND, scores, dense, avg_factor=2)
    torch.testing.assert_close(found, plain(scores, torch.zeros(5, 3), avg_factor=2))
