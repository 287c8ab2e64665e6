"""Draws the weights anew before each task."""

from collections.abc import Sequence

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
        self.build()

    def build(self) -> Reinitialised:
        return Reinitialised(**self.config)
