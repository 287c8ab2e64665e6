"""Function distance regularisation."""

from torch import Tensor

from mmforget.methods.base import RETAIN
from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.methods.terms import check_axis, check_weights, distance
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput


@METHODS.register_module()
class FDR(RelabelledReplay):
    """L = L_det(D̃_f) + λ·mean ‖z_S(D_r) − z_T(D_r)‖₂ (arXiv 1805.08289; spec C).

    Args:
        strength: λ; the authors take 5 in detection, 40 to 50 in classification.
        axis: Along which the norm is taken: ``'classes'``, or ``'queries'`` as in the authors'
            detection code (spec E.1).
        labels: Of the forget set, see :class:`~mmforget.methods.relabelling.Relabelling`.
        forget_weight: Of L_det(D̃_f).
        teacher: ``'loaded'``, ``'previous'`` or ``'untrained'``.

    Raises:
        ValueError: A weight is negative, or ``axis`` or ``labels`` is unknown.
    """

    needs = frozenset({'losses', 'logits'})
    teacher_streams = frozenset({RETAIN})

    def __init__(
        self,
        strength: float = 5.0,
        axis: str = 'classes',
        labels: str = 'background',
        forget_weight: float = 1.0,
        teacher: str = 'loaded',
    ) -> None:
        super().__init__(labels, 0.0, forget_weight)
        check_weights('FDR', strength=strength)
        self.strength = strength
        self.axis = check_axis(axis, 'FDR')
        self.teacher = teacher

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = super().losses(forget, retain)
        return {**terms, 'loss_distillation': self.strength * distance(retain, self.axis)}
