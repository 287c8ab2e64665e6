"""GS-LoRA's objective (arXiv 2403.11530): a bounded forgetting loss and a retain loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, ForgettingMethod, TaskContext
from mmforget.methods.terms import detection_terms, flat, is_class_loss
from mmforget.registry import METHODS
from mmforget.structures import ForgettingScenario, ForgettingTask, StreamOutput
from mmforget.taps import StreamOptions


@METHODS.register_module()
class GSLoRA(ForgettingMethod):
    """L = w_r·L_retain + β·(Σ ReLU(bound − L_cls) + w_b·L_box) (spec B.3, B.4, B.6).

    The class loss of the forget stream is pushed up until it reaches ``bound``; the box losses
    keep their sign: the detector goes on localising what it no longer names. So do the losses of
    two-stage proposals (``enc_...``), which tell objects from background and name no class. The
    group penalty belongs to the trainable part.

    Args:
        forget_weight: β; one number, or one per task.
        bound: BND, where the forget stream's class loss stops growing, in units of the
            weighted loss (MMDetection's ``loss_cls``). The authors use 15 with β = 0.15.
        retain_weight: w_r.
        box_weight: w_b, the forget stream's positive box terms.
        matched_only: The forget stream's class loss counts matched queries only, so that it
            cannot be raised by false positives on the background (spec B.4, inferred).
        true_class_only: Of those, it counts the true class's score only, so that it cannot be
            raised by giving a forgotten object the name of a retained class either. Of a
            softmax, it counts that score against the background's. Implies ``matched_only``.
        log_odds: The forget stream's class loss is minus the log-odds of matched queries' true
            classes, and the bound one of log-odds: 8 is a score of e^-8. A focal loss pushes
            least where the detector is surest. Implies ``true_class_only``.
        bound_each: The bound holds for each matched query, not for the mean of all, so that a class
            that was forgotten at once does not stand in for another one, and is not pushed on.
            Implies ``matched_only``.
        auxiliary: Uses the losses of every decoder layer, each class loss with its own bound.

    Raises:
        ValueError: A weight is negative, or the bound is not positive.
    """

    def __init__(
        self,
        forget_weight: float | Sequence[float] = 0.15,
        bound: float = 15.0,
        retain_weight: float = 1.0,
        box_weight: float = 1.0,
        matched_only: bool = False,
        true_class_only: bool = False,
        log_odds: bool = False,
        bound_each: bool = False,
        auxiliary: bool = False,
    ) -> None:
        weights = (
            [float(w) for w in forget_weight]
            if isinstance(forget_weight, (list, tuple))
            else [float(forget_weight)]
        )
        if not weights or min(*weights, retain_weight, box_weight) < 0:
            raise ValueError(
                f'GSLoRA got forget_weight={forget_weight!r}, retain_weight={retain_weight!r}, '
                f'box_weight={box_weight!r}; expected numbers that are not negative.'
            )
        if bound <= 0:
            raise ValueError(f'GSLoRA got bound={bound!r}; expected a positive number.')
        self.forget_weights = weights
        self.bound = bound
        self.retain_weight = retain_weight
        self.box_weight = box_weight
        self.matched_only = matched_only
        self.true_class_only = true_class_only or log_odds
        self.log_odds = log_odds
        self.bound_each = bound_each
        self.auxiliary = auxiliary
        self.forget_weight = weights[0]

    def check(self, scenario: ForgettingScenario) -> None:
        for task in scenario.tasks:
            self._forget_weight(task)

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        self.forget_weight = self._forget_weight(task)

    def _forget_weight(self, task: ForgettingTask) -> float:
        if len(self.forget_weights) == 1:
            return self.forget_weights[0]
        if task.index >= len(self.forget_weights):
            raise ValueError(
                f'GSLoRA got {len(self.forget_weights)} forget weights, but the scenario has a '
                f'task number {task.index + 1}. Give one number, or one per task.'
            )
        return self.forget_weights[task.index]

    def stream_options(self, stream: str) -> StreamOptions:
        forget = stream == FORGET
        return StreamOptions(
            matched_only=forget and (self.matched_only or self.true_class_only or self.bound_each),
            true_class_only=forget and self.true_class_only,
            log_odds=forget and self.log_odds,
            bound=self.bound if forget and self.bound_each else None,
            auxiliary=self.auxiliary,
        )

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = detection_terms(retain.losses, RETAIN, self.retain_weight)
        for name, value in forget.losses.items():
            if is_class_loss(name):
                terms[f'forget_{flat(name)}'] = value.detach()
                value = torch.relu(self.bound - value)
            else:
                value = self.box_weight * value
            terms[f'loss_forget_{flat(name)}'] = self.forget_weight * value
        return terms
