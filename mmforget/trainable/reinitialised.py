"""Weights that begin anew before each task: Retrain."""

import logging
from collections.abc import Callable, Sequence

import torch
from mmengine.logging import MMLogger
from torch import nn

from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable.whole_weights import WholeWeights


class Reinitialised(WholeWeights):
    """All weights are drawn anew before each task, then trained.

    In the authors' detection code the model that was drawn anew is thrown away, and Retrain goes on
    from the trained weights (spec E.1).

    Args:
        build: Gives the detector as its config builds it, not initialised yet.
        kept: Parts of the detector that keep their weights, such as ``'backbone'``, whose BatchNorm
            statistics a task does not train.
    """

    def __init__(self, build: Callable[[], nn.Module], kept: Sequence[str] = ()) -> None:
        super().__init__(frozen=())
        self.build = build
        self.kept = [kept] if isinstance(kept, str) else list(kept)

    def check(self, model: nn.Module, scenario: ForgettingScenario) -> None:
        parts = dict(model.named_children())
        for name in self.kept:
            if name not in parts:
                raise ValueError(
                    f'kept={self.kept!r}: the detector has no part {name!r}; it has '
                    f'{", ".join(parts)}.'
                )
        super().check(model, scenario)

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        own = tuple(f'{name}.' for name in self.kept)
        state = {k: v for k, v in self._drawn(seed).items() if not k.startswith(own or ('\0',))}
        model.load_state_dict(state, strict=False)
        super().inject(model, task, seed)

    def restore(self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict) -> None:
        super().inject(model, task, seed)  # The weights come out of the checkpoint.

    def _drawn(self, seed: int) -> dict[str, torch.Tensor]:
        """Weights and statistics of a detector that MMEngine builds and initialises."""
        logger = MMLogger.get_current_instance()
        level = logger.level
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            fresh = self.build()
            for name in self.kept:
                _leave_out(fresh.get_submodule(name))
            logger.setLevel(logging.WARNING)  # A line for each weight.
            try:
                fresh.init_weights()
            finally:
                logger.setLevel(level)
        return fresh.state_dict()


def _leave_out(part: nn.Module) -> None:
    """What keeps its weights fetches none."""
    for module in part.modules():
        if hasattr(module, 'init_cfg'):
            module.init_cfg = None
