"""SCRUB: alternately away from the teacher and back to it."""

from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, ForgettingMethod
from mmforget.methods.terms import check_axis, check_weights, detection_terms, divergence
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput


@METHODS.register_module()
class SCRUB(ForgettingMethod):
    """Passes that maximise KD(D_f) alternate with passes that minimise on D_r (arXiv 2302.09880).

    A forgetting pass has L = −KD(D_f), a retaining pass L = γ·L_det(D_r) + α·KD(D_r) (spec C). Each
    of ``cycles`` equal parts of the budget has ``rounds`` times one pass of either kind, then
    ``rounds`` retaining passes. Where there is no dropout a task's first pass changes nothing:
    teacher and student agree. The authors divide the learning rate by 10 after two thirds:
    ``MultiStepLR``.

    Args:
        retain_weight: γ; 0.99.
        distillation_weight: α; 0.001.
        temperature: T of KD; 2.
        cycles: 3 in detection, 10 in classification.
        rounds: 5.
        axis: Along which KD is taken: ``'classes'``, or ``'queries'`` as in the authors' detection
            code (spec E.1).
        teacher: ``'loaded'``, ``'previous'`` or ``'untrained'``.

    Raises:
        ValueError: A weight is negative, a number is not positive, or ``axis`` is unknown.
    """

    needs = frozenset({'losses', 'logits'})
    teacher_streams = frozenset({FORGET, RETAIN})

    def __init__(
        self,
        retain_weight: float = 0.99,
        distillation_weight: float = 0.001,
        temperature: float = 2.0,
        cycles: int = 3,
        rounds: int = 5,
        axis: str = 'classes',
        teacher: str = 'loaded',
    ) -> None:
        check_weights('SCRUB', retain_weight=retain_weight, distillation_weight=distillation_weight)
        if min(temperature, cycles, rounds) <= 0:
            raise ValueError(
                f'SCRUB got temperature={temperature!r}, cycles={cycles!r}, rounds={rounds!r}; '
                'expected positive numbers.'
            )
        self.retain_weight = retain_weight
        self.distillation_weight = distillation_weight
        self.temperature = temperature
        self.cycles = cycles
        self.rounds = rounds
        self.axis = check_axis(axis, 'SCRUB')
        self.teacher = teacher
        self.forgets = True

    def before_step(self, step: int, max_steps: int) -> None:
        passes = 3 * self.rounds
        place = step * self.cycles * passes // max_steps % passes
        self.forgets = place < 2 * self.rounds and place % 2 == 0
        self.streams = frozenset({FORGET if self.forgets else RETAIN})

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        if self.forgets:
            away = divergence(forget, self.temperature, self.axis)
            return {'loss_forget_distillation': -away}
        near = divergence(retain, self.temperature, self.axis)
        return {
            **detection_terms(retain.losses, RETAIN, self.retain_weight),
            'loss_retain_distillation': self.distillation_weight * near,
        }
