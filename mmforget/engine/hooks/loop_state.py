"""Carries the loop's state through MMEngine's loading of checkpoints."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner


class LoopStateHook(Hook):
    """Registered by the loop itself: tells it that weights came, and lets it restore."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        runner.train_loop.restore(checkpoint)
