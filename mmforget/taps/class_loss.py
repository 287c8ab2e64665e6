"""Which of a head's predictions its class loss counts, whatever loss that is."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mmforget.taps.base import StreamOptions
from mmforget.taps.replaced import replaced

# A logit at which a sigmoid's loss on a negative, the part in a softmax, and their gradients are
# below float32's reach.
_CERTAINLY_NOT = -100.0


@contextmanager
def counting(
    heads: Sequence[nn.Module], options: StreamOptions, mean_over_matched: bool
) -> Iterator[None]:
    """While open, the heads' ``loss_cls`` counts what ``options`` says.

    Args:
        heads: Heads of MMDetection with a ``loss_cls``.
        options: What is counted.
        mean_over_matched: With matched predictions alone, the loss is their mean. Otherwise it is
            averaged as the head wants it: dense heads divide by the number of objects anyhow.
    """
    if not (options.matched_only or options.true_class_only or options.background):
        yield
        return
    with ExitStack() as stack:
        for head in heads:
            for name in ('loss_cls', 'initial_loss_cls'):  # TOOD has another one at first.
                if hasattr(head, name):
                    loss = getattr(head, name)
                    counted = _CountedClassLoss(loss, options, mean_over_matched)
                    stack.enter_context(replaced(head, name, counted))
        yield


class _CountedClassLoss(nn.Module):
    """A class loss that sees matched predictions, or their true classes, alone."""

    def __init__(self, loss: nn.Module, options: StreamOptions, mean_over_matched: bool) -> None:
        super().__init__()
        self.loss = loss
        self._options = options
        self._mean_over_matched = mean_over_matched

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('loss'), name)

    def forward(
        self,
        scores: Tensor,
        target: Tensor | tuple[Tensor, ...],
        weight: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """The loss of what counts.

        Args:
            scores: (N, C) for sigmoids, (N, C + 1) for a softmax with the background at the end.
            target: Labels (N,), C and above for the background; or scores of every class, (N, C);
                or labels with their scores.
            weight: (N,) or (N, C).
            **options: ``avg_factor`` and others of MMDetection's losses.
        """
        sigmoid = getattr(self.loss, 'use_sigmoid', False)
        classes = scores.shape[-1] if sigmoid else scores.shape[-1] - 1
        if self._options.background:
            return self._as_background(scores, target, weight, classes, **options)
        true = _true_classes(target, classes)
        matched = true.any(dim=-1)
        if self._options.log_odds:
            return self._minus_log_odds(scores, true, sigmoid)
        if self._options.true_class_only:
            # Some heads give their loss probabilities.
            nothing = 0.0 if getattr(self.loss, 'activated', False) else _CERTAINLY_NOT
            background = true.new_ones(len(scores), scores.shape[-1] - classes)
            counted = torch.cat([true, background], dim=-1)
            scores = torch.where(counted, scores, scores.new_tensor(nothing))
        if weight is None:
            by_class = not isinstance(target, (tuple, list)) and target.dim() > 1
            weight = scores.new_ones((*matched.shape, 1) if by_class else matched.shape)
        weight = weight * (matched if weight.dim() == matched.dim() else matched.unsqueeze(-1))
        if self._mean_over_matched and options.get('avg_factor') is not None:
            options['avg_factor'] = matched.sum().clamp(min=1).to(scores.dtype)
        if self._options.bound is None:
            return self.loss(scores, target, weight, **options)
        return self._bounded(scores, target, weight, matched.sum(), **options)

    def _minus_log_odds(self, scores: Tensor, true: Tensor, sigmoid: bool) -> Tensor:
        """The mean over matched predictions; zero where there is none."""
        if not sigmoid:
            odds = scores[:, :-1] - scores[:, -1:]  # Against the background's.
        elif getattr(self.loss, 'activated', False):  # The head gives its loss probabilities.
            odds = scores.logit(eps=1e-6)
        else:
            odds = scores
        found = -odds[true]
        if self._options.bound is not None:
            found = found.clamp(max=self._options.bound)
        return found.sum() / max(len(found), 1)

    def _as_background(
        self,
        scores: Tensor,
        target: Tensor | tuple[Tensor, ...],
        weight: Tensor | None,
        classes: int,
        **options: Any,
    ) -> Tensor:
        """The loss of all predictions, none of which is told to be of a class."""
        true = _true_classes(target, classes)
        if self._options.matched_only and weight is not None:
            matched = true.any(dim=-1)
            weight = weight * (matched if weight.dim() == 1 else matched.unsqueeze(-1))
        if isinstance(target, (tuple, list)):
            labels, *of_labels = target
            labels = labels.masked_fill(true.any(dim=-1), classes)
            target = (labels, *(torch.zeros_like(scores) for scores in of_labels))
        elif target.dim() > 1:
            target = torch.zeros_like(target)
        else:
            target = target.masked_fill(true.any(dim=-1), classes)
        return self.loss(scores, target, weight, **options)

    def _bounded(
        self,
        scores: Tensor,
        target: Tensor | tuple[Tensor, ...],
        weight: Tensor,
        matched: Tensor,
        avg_factor: Any = None,
        **options: Any,
    ) -> Tensor:
        """Their sum or mean, as the head wants it, none of them above the bound."""
        options['reduction_override'] = 'none'
        losses = self.loss(scores, target, weight, **options)
        total = losses.flatten(1).sum(1) if losses.dim() > 1 else losses
        total = total.clamp(max=self._options.bound).sum()
        if avg_factor is None and getattr(self.loss, 'reduction', 'mean') == 'sum':
            return total
        return total / (matched.clamp(min=1) if avg_factor is None else avg_factor)


def _true_classes(target: Tensor | tuple[Tensor, ...], classes: int) -> Tensor:
    """Whether a class is the true one of a prediction, (N, C); nowhere for the background."""
    labels = target[0] if isinstance(target, (tuple, list)) else target
    if labels.dim() > 1:
        return labels > 0
    known = (labels >= 0) & (labels < classes)
    safe = torch.where(known, labels, classes).long()
    return one_hot(safe, classes + 1)[:, :classes].bool()
