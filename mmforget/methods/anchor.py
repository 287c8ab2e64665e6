"""Weights tied to what they were, more tightly where they matter more."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class WeightAnchor:
    """Σ_i Σ_n Ω_i,n (θ_n − θ*_i,n)² over the snapshots i = 0..t of all tasks so far.

    A sum of parabolas is one parabola, plus a constant without gradient: what is kept is
    Ω = Σ_i Ω_i and the centre Σ_i Ω_i·θ*_i / Ω. So memory does not grow with the tasks, and the
    gradient is that of the sum over all snapshots.

    Args:
        online: Only the last snapshot counts.
    """

    def __init__(self, online: bool = False) -> None:
        self.online = online
        self.importance: dict[str, Tensor] = {}
        self.centre: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor], importance: Mapping[str, Tensor | float]) -> None:
        """Adds a snapshot.

        Args:
            weights: The weights as they are now, by path.
            importance: How much each matters, by path: a number, or one for each entry.
        """
        if self.online:
            self.importance, self.centre = {}, {}
        for name, weight in weights.items():
            own = torch.as_tensor(importance[name], dtype=weight.dtype, device=weight.device)
            own = own.expand_as(weight)
            known = self.importance.get(name)
            if known is None:
                self.importance[name] = own.clone()
                self.centre[name] = weight.detach().clone()
                continue
            total = known + own
            step = torch.where(total > 0, own / total.clamp(min=1e-30), 0)
            self.centre[name].lerp_(weight.detach(), step)
            self.importance[name] = total

    def penalty(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum, without its constant.

        Args:
            weights: The weights that move, by path; paths without a snapshot do not count.
        """
        terms = [
            (self.importance[name] * (weight - self.centre[name]).square()).sum()
            for name, weight in weights.items()
            if name in self.importance
        ]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        """Importances and centres."""
        return {'importance': self.importance, 'centre': self.centre}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.importance, self.centre = dict(state['importance']), dict(state['centre'])
