"""Draws the weights anew before each task."""

from collections.abc import Sequence

from mmengine.runner import Runner
from torch import nn

from mmforget.engine.fresh_detector import fresh_detector
from mmforget.engine.hooks.trainable import TrainableHook
from mmforget.registry import HOOKS
from mmforget.trainable import Reinitialised


@HOOKS.register_module()
class ReinitialisedHook(TrainableHook):
    """Retrain: with ``FineTuning``, training on the retain set from weights drawn anew.

    Args:
        kept: Parts of the detector that keep their weights, such as ``'backbone'``.
    """

    def __init__(self, kept: str | Sequence[str] = ()) -> None:
        self.config = {'kept': kept}
        self._runner: Runner | None = None

    def before_run(self, runner: Runner) -> None:
        self._runner = runner

    def build(self) -> Reinitialised:
        return Reinitialised(self._detector, **self.config)

    def _detector(self) -> nn.Module:
        if self._runner is None:
            raise RuntimeError('ReinitialisedHook was asked for weights before the run began.')
        return fresh_detector(self._runner)
