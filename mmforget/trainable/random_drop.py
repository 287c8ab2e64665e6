"""Entries set to zero at random: a reference that trains nothing."""

import torch
from torch import Tensor, nn

from mmforget.structures import ForgettingTask
from mmforget.trainable.base import TrainablePart


class RandomDrop(TrainablePart):
    """Every tensor loses a random share of its entries, between zero and ``share`` (spec C).

    Args:
        share: The largest share; 0.2 in the authors' code.

    Raises:
        ValueError: ``share`` lies outside (0, 1].
    """

    def __init__(self, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise ValueError(f'RandomDrop got share={share!r}; expected a number in (0, 1].')
        self.share = share

    def moving(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            share = float(torch.rand((), generator=generator)) * self.share
            dropped = torch.rand(parameter.shape, generator=generator) < share
            parameter.masked_fill_(dropped.to(parameter.device), 0)

    def restore(self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict) -> None:
        """The zeros come out of the checkpoint."""

    def parameters(self) -> list[nn.Parameter]:
        return []

    def weights(self) -> dict[str, Tensor]:
        return {}

    def fold(self, model: nn.Module) -> None:
        """There is nothing to fold."""
