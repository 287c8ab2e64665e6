"""Lets whole weights move."""

from collections.abc import Sequence

from mmforget.engine.hooks.trainable import TrainableHook
from mmforget.registry import HOOKS
from mmforget.trainable import WholeWeights


@HOOKS.register_module()
class FullFineTuningHook(TrainableHook):
    """Every parameter moves that is not frozen.

    Args:
        frozen: ``'heads'`` (the authors' baselines), regexes that match whole paths of parameters,
            or ``()`` for none.
    """

    def __init__(self, frozen: str | Sequence[str] = 'heads') -> None:
        self.config = {'frozen': frozen}
        self.build()

    def build(self) -> WholeWeights:
        return WholeWeights(**self.config)
