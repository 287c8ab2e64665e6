"""Weights that begin anew before each task: Retrain."""

import logging
from collections.abc import Callable, Mapping, Sequence

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
        drawn = drawn_weights(self.build, seed, self.kept)
        state = {k: v for k, v in drawn.items() if not k.startswith(own or ('\0',))}
        model.load_state_dict(state, strict=False)
        super().inject(model, task, seed)

    def restore(self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict) -> None:
        super().inject(model, task, seed)  # The weights come out of the checkpoint.


def drawn_weights(
    build: Callable[[], nn.Module], seed: int, kept: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Weights and statistics of a detector that MMEngine builds and initialises.

    Args:
        build: Gives the detector as its config builds it, not initialised yet.
        seed: Of the draw.
        kept: Parts for which no pretrained weights are fetched; ``''`` is the whole detector.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = build()
        for name in kept:
            fetch_nothing(fresh.get_submodule(name))
        logger.setLevel(logging.WARNING)  # A line for each weight.
        try:
            fresh.init_weights()
        finally:
            logger.setLevel(level)
    return fresh.state_dict()


def fetch_nothing(part: nn.Module) -> None:
    """Leaves ``init_cfg=dict(type='Pretrained', ...)`` out: other weights follow."""
    for module in part.modules():
        init_cfg = getattr(module, 'init_cfg', None)
        if isinstance(init_cfg, Mapping) and init_cfg.get('type') == 'Pretrained':
            module.init_cfg = None
