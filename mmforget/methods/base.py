"""The contract of a method: which losses make the detector forget and keep."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmforget.structures import ForgettingScenario, ForgettingTask, StreamOutput
from mmforget.taps import StreamOptions

FORGET, RETAIN = 'forget', 'retain'


class ForgettingMethod:
    """An objective. Every stage has a default; a subclass overrides what it needs.

    A method holds no trainable parameter: what may move is the trainable part's matter.

    Attributes:
        needs: Fields of ``StreamOutput`` that the tap must be able to give.
    """

    needs: frozenset[str] = frozenset({'losses'})

    def check(self, scenario: ForgettingScenario) -> None:
        """Called before any work: raises where the arguments do not fit the tasks."""

    def before_task(self, task: ForgettingTask, detector: Any) -> None:
        """Called before a task's first step, after injection: snapshots, prototypes."""

    def stream_options(self, stream: str) -> StreamOptions:
        """What is wanted of ``'forget'`` or ``'retain'``."""
        return StreamOptions()

    def targets(self, stream: str, data_samples: Sequence[Any]) -> Sequence[Any]:
        """May change labels before they are matched (relabelling, masking)."""
        return data_samples

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        """Named scalars. Those with ``loss`` in their name are added up, all are logged."""
        raise NotImplementedError

    def after_task(self) -> None:
        """Called after a task's last step, before folding."""

    def state_dict(self) -> dict[str, Any]:
        """All that must survive a kill, as tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""
