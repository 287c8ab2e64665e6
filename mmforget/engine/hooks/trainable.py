"""Hooks that say which part of the detector may move: thin registrations."""

from mmengine.hooks import Hook

from mmforget.trainable import TrainablePart


class TrainableHook(Hook):
    """Base of the hooks that bring a trainable part; the loop looks for it among the hooks."""

    def build(self) -> TrainablePart:
        """A fresh trainable part for one task."""
        raise NotImplementedError
