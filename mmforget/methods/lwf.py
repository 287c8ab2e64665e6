"""Learning without forgetting, turned to forgetting."""

from torch import Tensor

from mmforget.methods.base import FORGET, TaskContext
from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.methods.terms import check_weights, divergence
from mmforget.registry import METHODS
from mmforget.structures import ForgettingTask, StreamOutput


@METHODS.register_module()
class LwF(RelabelledReplay):
    """L = L_det(D̃_f) + λ·KD(D_f) + w_r·L_det(D_r) (arXiv 1606.09282; spec C).

    On the forget images the student answers for the retained classes as the teacher does. In the
    authors' code KD is zero, because it takes the logarithm of a logarithm (spec E.2).

    Args:
        strength: λ; the authors write 0.5.
        retain_weight: w_r; the authors take 2 to 10.
        temperature: T of KD.
        labels: Of the forget set, see :class:`~mmforget.methods.relabelling.Relabelling`.
        forget_weight: Of L_det(D̃_f).
        teacher: ``'loaded'``, ``'previous'`` or ``'untrained'``.

    Raises:
        ValueError: A weight is negative, ``temperature`` is not positive, or ``labels`` is unknown.
    """

    needs = frozenset({'losses', 'logits'})
    teacher_streams = frozenset({FORGET})

    def __init__(
        self,
        strength: float = 0.5,
        retain_weight: float = 2.0,
        temperature: float = 2.0,
        labels: str = 'background',
        forget_weight: float = 1.0,
        teacher: str = 'loaded',
    ) -> None:
        super().__init__(labels, retain_weight, forget_weight)
        check_weights('LwF', strength=strength, temperature=temperature)
        if not temperature:
            raise ValueError('LwF got temperature=0; expected a positive number.')
        self.strength = strength
        self.temperature = temperature
        self.teacher = teacher
        self._retained: list[int] = []

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        super().before_task(task, context)
        self._retained = [context.classes.index(name) for name in task.retained]

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        kept = divergence(forget, self.temperature, columns=self._retained)
        return {**super().losses(forget, retain), 'loss_distillation': self.strength * kept}
