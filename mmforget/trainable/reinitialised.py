"""Weights that begin anew before each task: Retrain."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mmforget.structures import ForgettingTask
from mmforget.trainable.whole_weights import WholeWeights


class Reinitialised(WholeWeights):
    """All weights are drawn anew before each task, then trained.

    In the authors' detection code the model that was drawn anew is thrown away, and Retrain goes on
    from the trained weights (spec E.1).

    Args:
        kept: Parts of the detector that keep their weights, such as ``'backbone'``, whose BatchNorm
            statistics a task does not train.
    """

    def __init__(self, kept: Sequence[str] = ()) -> None:
        super().__init__(frozen=())
        self.kept = [kept] if isinstance(kept, str) else list(kept)

    def check(self, model: nn.Module, scenario: object) -> None:
        parts = dict(model.named_children())
        for name in self.kept:
            if name not in parts:
                raise ValueError(
                    f'kept={self.kept!r}: the detector has no part {name!r}; it has '
                    f'{", ".join(parts)}.'
                )
        super().check(model, scenario)

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        self._draw(model, seed)
        super().inject(model, task, seed)

    def restore(self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict) -> None:
        super().inject(model, task, seed)  # The weights come out of the checkpoint.

    def _draw(self, model: nn.Module, seed: int) -> None:
        """As PyTorch and MMEngine initialise a model that is built."""
        before = {
            f'{name}.{key}': value.clone()
            for name in self.kept
            for key, value in model.get_submodule(name).state_dict().items()
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in model.modules():
                if hasattr(module, 'reset_parameters'):
                    module.reset_parameters()
            for module in model.modules():
                if isinstance(module, BaseModule):
                    module._is_init = False
            model.init_weights()
        state = model.state_dict()
        with torch.no_grad():
            for name, value in before.items():
                state[name].copy_(value)
