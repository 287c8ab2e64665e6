"""GS-LoRA that holds on to every answer but those for the classes it is to forget: our variant."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, TaskContext
from mmforget.methods.gs_lora import GSLoRA
from mmforget.methods.terms import check_weights, squared_difference
from mmforget.registry import METHODS
from mmforget.structures import ForgettingTask, StreamOutput


@METHODS.register_module()
class GSLoRADistilled(GSLoRA):
    """L = L_GS-LoRA + λ·(‖z_S − z_T‖²(D_r) + ‖z_S − z_T‖²(D_f)), z without the classes of F_t.

    z are the class logits of all queries; the distance is summed over queries and classes, mean
    over images, as in DER. The teacher is the detector before the task. So the bounded loss may
    push the classes of F_t hard, while retained classes and those forgotten earlier keep the order
    in which their scores stand, on which their AP depends, in unlabelled objects as well.

    Args:
        strength: λ.
        teacher: ``'previous'``, ``'loaded'`` or ``'untrained'``. The loaded one would bring back
            what was forgotten before.
        **arguments: See :class:`~mmforget.methods.gs_lora.GSLoRA`.

    Raises:
        ValueError: A weight is negative, or another argument is out of range.
    """

    needs = frozenset({'losses', 'logits'})
    teacher_streams = frozenset({FORGET, RETAIN})

    def __init__(self, strength: float = 0.01, teacher: str = 'previous', **arguments: Any) -> None:
        super().__init__(**arguments)
        check_weights('GSLoRADistilled', strength=strength)
        self.strength = strength
        self.teacher = teacher
        self._held: Sequence[int] = ()

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        super().before_task(task, context)
        labels = range(len(context.classes))
        self._held = [label for label in labels if context.classes[label] not in task.classes]

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = super().losses(forget, retain)
        for name, output in ((FORGET, forget), (RETAIN, retain)):
            held = squared_difference(output, self._held)
            terms[f'loss_{name}_distillation'] = self.strength * held
        return terms
