"""The contract of a method: which losses make the detector forget and keep."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmforget.structures import ForgettingScenario, ForgettingTask, StreamOutput
from mmforget.taps import StreamOptions

FORGET, RETAIN = 'forget', 'retain'
TEACHERS = ('loaded', 'previous', 'untrained')


@dataclass(frozen=True)
class TaskContext:
    """What a method may look at besides the streams.

    Attributes:
        detector: The detector with its trainable part in it.
        classes: The label map, in label order.
        weights: The weights that move as they are now, by their paths in the plain detector, with
            gradient; those of an adapted layer are W + s·BA.
    """

    detector: nn.Module
    classes: Sequence[str]
    weights: Callable[[], Mapping[str, Tensor]]


class Measurement:
    """Passes over a stream through the plain detector, before a task's first step.

    Attributes:
        weights: The weights that the task will move, by their paths; they take gradients.
    """

    weights: Mapping[str, nn.Parameter]

    def outputs(self, stream: str, each: bool = False) -> Iterator[list[StreamOutput]]:
        """What the stream yields, batch by batch, ``measured_batches`` of them, without dropout.

        Args:
            stream: ``'forget'`` or ``'retain'``.
            each: One output for each image; otherwise one for the whole batch.
        """
        raise NotImplementedError

    def class_rows(self) -> Tensor:
        """The weights of the layer that scores the classes, (C, D), in label order.

        Raises:
            TypeError: The detector's family has no such layer.
        """
        raise NotImplementedError


class ForgettingMethod:
    """An objective. Every stage has a default; a subclass overrides what it needs.

    A method holds no trainable parameter: what may move is the trainable part's matter. One
    instance lives through all tasks.

    Attributes:
        needs: Fields of ``StreamOutput`` that the tap must be able to give.
        streams: The streams that the coming step looks at; the others are not run.
        teacher_streams: The streams for which the teacher is asked.
        teacher: Who that is: the ``'loaded'`` detector, that of the ``'previous'`` task, or, as in
            the authors' detection code, an ``'untrained'`` one (spec E.1).
        measured_batches: Batches of each stream wanted by ``measure``; 0 calls it with none.
    """

    needs: frozenset[str] = frozenset({'losses'})
    streams: frozenset[str] = frozenset({FORGET, RETAIN})
    teacher_streams: frozenset[str] = frozenset()
    teacher: str = 'loaded'
    measured_batches: int = 0

    def check(self, scenario: ForgettingScenario) -> None:
        """Called before any work: raises where the arguments do not fit the tasks."""

    def measure(self, task: ForgettingTask, measurement: Measurement) -> None:
        """Called before a task, before injection: importances, prototypes.

        What it finds belongs into ``state_dict``: it is not called again when a task is resumed.
        """

    def before_task(self, task: ForgettingTask, context: TaskContext) -> None:
        """Called before a task's first step, after injection, and when a task is resumed."""

    def before_step(self, step: int, max_steps: int) -> None:
        """Called before each step: phases.

        Args:
            step: Steps done in this task.
            max_steps: The task's budget.
        """

    def stream_options(self, stream: str) -> StreamOptions:
        """What is wanted of ``'forget'`` or ``'retain'``."""
        return StreamOptions()

    def targets(self, stream: str, data_samples: Sequence[Any]) -> Sequence[Any]:
        """May change labels before they are matched (relabelling, masking)."""
        return data_samples

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        """Named scalars. Those with ``loss`` in their name are added up, all are logged.

        Args:
            forget: What the forget stream yields; ``None`` where ``streams`` leaves it out.
            retain: The same of the retain stream.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each update: running averages."""

    def after_task(self) -> None:
        """Called after a task's last step, before folding."""

    def state_dict(self) -> dict[str, Any]:
        """All that must survive a kill, as tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict``."""
