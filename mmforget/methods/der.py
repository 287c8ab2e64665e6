"""Dark experience replay."""

from torch import Tensor

from mmforget.methods.base import RETAIN
from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.methods.terms import check_weights, squared_difference
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput


@METHODS.register_module()
class DER(RelabelledReplay):
    """L = L_det(D̃_f) + λ·‖z_S(D_r) − z_T(D_r)‖² (arXiv 2004.07211; spec C).

    z are the class logits of all queries. The teacher is the loaded detector; in the authors'
    detection code it is one whose weights were never loaded (spec E.1).

    Args:
        strength: λ, of the mean over images; 0.001 of a batch's sum in the authors' code.
        labels: Of the forget set, see :class:`~mmforget.methods.relabelling.Relabelling`.
        forget_weight: Of L_det(D̃_f).
        teacher: ``'loaded'``, ``'previous'`` or ``'untrained'``.

    Raises:
        ValueError: A weight is negative, or ``labels`` is unknown.
    """

    needs = frozenset({'losses', 'logits'})
    teacher_streams = frozenset({RETAIN})

    def __init__(
        self,
        strength: float = 0.01,
        labels: str = 'background',
        forget_weight: float = 1.0,
        teacher: str = 'loaded',
    ) -> None:
        super().__init__(labels, 0.0, forget_weight)
        check_weights(type(self).__name__, strength=strength)
        self.strength = strength
        self.teacher = teacher

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = super().losses(forget, retain)
        return {**terms, 'loss_distillation': self.strength * squared_difference(retain)}
