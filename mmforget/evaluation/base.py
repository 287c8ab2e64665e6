"""The contract of a metric of forgetting: what a loop asks of it."""

from typing import Any

from mmforget.structures import ForgettingScenario, ForgettingTask


class ForgettingMetric:
    """Measures the loaded model once, then the model after each task against it.

    Attributes:
        base: What the loaded model reached, as plain JSON types; ``None`` if not known.
    """

    base: dict[str, Any] | None = None

    def begin(self, scenario: ForgettingScenario, base: dict | None = None) -> None:
        """Puts the metric into a loop's hands.

        Args:
            scenario: The scenario that the loop runs.
            base: ``base`` of an earlier run of the same scenario.
        """
        raise NotImplementedError

    def set_task(self, task: ForgettingTask | None) -> None:
        """Says what the next evaluations measure: a task, or the loaded model for ``None``."""
        raise NotImplementedError

    def row(self) -> dict[str, Any]:
        """The last evaluation after a task, for its row: ``full``, ``restricted``, ..."""
        raise NotImplementedError
