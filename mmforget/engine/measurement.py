"""Passes over the streams before a task, for importances and prototypes."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn

from mmforget.engine.randomness import seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.methods import Measurement
from mmforget.structures import ForgettingTask, StreamOutput
from mmforget.trainable import TrainablePart


class PlainWeights(TrainablePart):
    """Weights of the plain detector that take gradients and are not moved.

    Args:
        weights: By path.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self._weights = dict(weights)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._weights.values())


class StreamMeasurement(Measurement):
    """Runs the plain detector on the batches that the task will begin with.

    Args:
        step: Of the plain detector, with ``PlainWeights``.
        weights: The weights that the task will move, by path.
        batches: Gives the task's batches of both streams, from the first.
        number: How many are taken.
        seed: The run's.
        task: The task.

    Attributes:
        batches_seen: Batches of one stream that have been run.
    """

    def __init__(
        self,
        step: ForgettingStep,
        weights: Mapping[str, nn.Parameter],
        batches: Callable[[], Iterator[dict[str, dict[str, Any]]]],
        number: int,
        seed: int,
        task: ForgettingTask,
    ) -> None:
        self.weights = weights
        self._step = step
        self._batches = batches
        self._number = number
        self._seed = seed
        self._task = task
        self.batches_seen = 0

    def outputs(self, stream: str, each: bool = False) -> Iterator[list[StreamOutput]]:
        self._step.train()
        # The detector itself stays in training mode, in which it gives what its losses need.
        for child in self._step.detector.children():
            child.eval()
        for number, batch in enumerate(islice(self._batches(), self._number)):
            seed_step(self._seed, self._task.index, number)
            self.batches_seen += 1
            yield self._step.measured(batch[stream], each)

    def class_rows(self) -> Tensor:
        return self._step.tap.class_rows()
