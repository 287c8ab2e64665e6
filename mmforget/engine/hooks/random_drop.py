"""Sets entries of the weights to zero at random."""

from mmforget.engine.hooks.trainable import TrainableHook
from mmforget.registry import HOOKS
from mmforget.trainable import RandomDrop


@HOOKS.register_module()
class RandomDropHook(TrainableHook):
    """A reference that trains nothing.

    Args:
        share: The largest share of a tensor's entries that is set to zero.
    """

    def __init__(self, share: float = 0.2) -> None:
        self.config = {'share': share}
        self.build()

    def build(self) -> RandomDrop:
        return RandomDrop(**self.config)
