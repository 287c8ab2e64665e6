"""Gradient ascent on the forget set."""

from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, ForgettingMethod
from mmforget.methods.terms import check_weights, detection_terms
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput


@METHODS.register_module()
class GradientAscent(ForgettingMethod):
    """L = −w_f·L_det(D_f) + w_r·L_det(D_r), class and box terms alike (spec C).

    It has no bound: with enough steps everything is destroyed. The authors give it no retain set.

    Args:
        forget_weight: w_f.
        retain_weight: w_r; 0 in the authors' code.
    """

    def __init__(self, forget_weight: float = 1.0, retain_weight: float = 0.0) -> None:
        check_weights('GradientAscent', forget_weight=forget_weight, retain_weight=retain_weight)
        self.forget_weight = forget_weight
        self.retain_weight = retain_weight
        self.streams = frozenset({FORGET, RETAIN} if retain_weight else {FORGET})

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = detection_terms(forget.losses, FORGET, -self.forget_weight)
        if retain is not None:
            terms |= detection_terms(retain.losses, RETAIN, self.retain_weight)
        return terms
