"""SCRUB with smoothing."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmforget.methods.base import TaskContext
from mmforget.methods.scrub import SCRUB
from mmforget.methods.terms import check_weights
from mmforget.registry import METHODS
from mmforget.structures import ForgettingTask, StreamOutput


@METHODS.register_module()
class SCRUBS(SCRUB):
    """SCRUB-S: every pass pulls the weights towards their running mean (spec C).

    SCRUB's loss of either pass + s·Σ_k ‖θ_k − θ̄_k‖, k over tensors, θ̄ the exponential mean of θ.
    In the authors' code θ̄ is never updated (spec E.1).

    Args:
        smoothing: s; the authors take 0.05 to 0.1.
        decay: Of the mean.
        **arguments: See :class:`~mmforget.methods.scrub.SCRUB`.

    Raises:
        ValueError: ``smoothing`` is negative, or ``decay`` lies outside [0, 1).
    """

    def __init__(self, smoothing: float = 0.05, decay: float = 0.99, **arguments: object) -> None:
        super().__init__(**arguments)
        check_weights('SCRUBS', smoothing=smoothing)
        if not 0 <= decay < 1:
            raise ValueError(f'SCRUBS got decay={decay!r}; expected a number in [0, 1).')
        self.smoothing = smoothing
        self.decay = decay
        self._weights: Callable[[], Mapping[str, Tensor]] = dict
        self._mean: dict[str, Tensor] = {}

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        super().before_task(task, context)
        self._weights = context.weights
        self._mean = {name: weight.detach().clone() for name, weight in context.weights().items()}

    @torch.no_grad()
    def after_step(self) -> None:
        for name, weight in self._weights().items():
            self._mean[name].lerp_(weight, 1 - self.decay)

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        terms = super().losses(forget, retain)
        squares = [
            (weight - self._mean[name]).square().sum() for name, weight in self._weights().items()
        ]
        # The root has no gradient at zero, where every task begins.
        distances = (torch.stack(squares) + 1e-12).sqrt()
        return {**terms, 'loss_smoothing': self.smoothing * distances.sum()}

    def state_dict(self) -> dict[str, Any]:
        return {'mean': self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = dict(state['mean'])
