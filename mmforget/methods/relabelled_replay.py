"""Training on retained data and relabelled forgotten data: what many baselines begin with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mmforget.methods.base import FORGET, RETAIN, ForgettingMethod, TaskContext
from mmforget.methods.relabelling import Relabelling
from mmforget.methods.terms import check_weights, detection_terms
from mmforget.structures import ForgettingTask, StreamOutput
from mmforget.taps import StreamOptions


class RelabelledReplay(ForgettingMethod):
    """L = w_r·L_det(D_r) + w_f·L_det(D̃_f), D̃_f with the forgotten classes' labels replaced.

    The authors' baselines shuffle both data sets into one; here each step has a batch of both.

    Args:
        labels: See :class:`~mmforget.methods.relabelling.Relabelling`.
        retain_weight: w_r.
        forget_weight: w_f.

    Raises:
        ValueError: ``labels`` is unknown, or a weight is negative.
    """

    def __init__(
        self, labels: str = 'background', retain_weight: float = 1.0, forget_weight: float = 1.0
    ) -> None:
        check_weights(type(self).__name__, retain_weight=retain_weight, forget_weight=forget_weight)
        self.relabelling = Relabelling(labels)
        self.retain_weight = retain_weight
        self.forget_weight = forget_weight

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        self.relabelling.before_task(task, context.classes)

    def stream_options(self, stream: str) -> StreamOptions:
        weight = self.forget_weight if stream == FORGET else self.retain_weight
        return replace(self.relabelling.stream_options(stream), losses=bool(weight))

    def targets(self, stream: str, data_samples: Sequence[Any]) -> Sequence[Any]:
        return self.relabelling.targets(stream, data_samples)

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        return {
            **detection_terms(retain.losses, RETAIN, self.retain_weight),
            **detection_terms(forget.losses, FORGET, self.forget_weight),
        }
