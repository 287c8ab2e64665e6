"""Hooks that say which part of the detector may move: thin registrations."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmforget.trainable import TrainablePart


class TrainableHook(Hook):
    """Base of the hooks that bring a trainable part; the loop looks for it among the hooks.

    Attributes:
        config: The arguments, by which a run that is resumed knows its own.
    """

    config: Mapping[str, Any] = {}

    def build(self) -> TrainablePart:
        """A fresh trainable part for one task."""
        raise NotImplementedError
