"""Relabelled replay with weights tied to what they were: L2, EWC and MAS."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mmforget.methods.anchor import WeightAnchor
from mmforget.methods.base import Measurement, TaskContext
from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.methods.terms import check_weights
from mmforget.structures import ForgettingTask, StreamOutput


class AnchoredReplay(RelabelledReplay):
    """L = L_det(D_r) + L_det(D̃_f) + λ Σ_i Σ_n Ω_i,n (θ_n − θ*_i,n)² (spec C).

    θ*_i are the weights before task i; with adapters, θ = W + s·BA.

    Args:
        strength: λ.
        labels: Of the forget set, see :class:`~mmforget.methods.relabelling.Relabelling`.
        retain_weight: Of L_det(D_r).
        forget_weight: Of L_det(D̃_f).
        online: Only the last task's θ* and Ω count.
    """

    def __init__(
        self,
        strength: float,
        labels: str = 'background',
        retain_weight: float = 1.0,
        forget_weight: float = 1.0,
        online: bool = False,
    ) -> None:
        super().__init__(labels, retain_weight, forget_weight)
        check_weights(type(self).__name__, strength=strength)
        self.strength = strength
        self.anchor = WeightAnchor(online)
        self._weights: Callable[[], Mapping[str, Tensor]] = dict

    @abstractmethod
    def importance(self, measurement: Measurement) -> Mapping[str, Tensor | float]:
        """Ω by path: how much each weight matters."""

    def measure(self, task: ForgettingTask, measurement: Measurement) -> None:
        self.anchor.add(measurement.weights, self.importance(measurement))

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        super().before_task(task, context)
        self._weights = context.weights

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        penalty = self.strength * self.anchor.penalty(self._weights())
        return {**super().losses(forget, retain), 'loss_anchor': penalty}

    def state_dict(self) -> dict[str, Any]:
        return self.anchor.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.load_state_dict(state)
