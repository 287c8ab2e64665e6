"""What forgotten objects are called in training instead of their names."""

from collections.abc import Sequence
from typing import Any

import torch

from mmforget.data_elements import independent
from mmforget.methods.base import FORGET
from mmforget.structures import ForgettingTask
from mmforget.taps import StreamOptions

LABELS = ('background', 'random')


class Relabelling:
    """Gives the objects of the forget stream other labels.

    Args:
        labels: ``'background'``: matched by their own class, then supervised as background, while
            their boxes are learnt as before, like the authors' label that COCO leaves unused;
            ``'random'``: each time an object is seen, a retained class drawn anew. (The authors'
            classification code draws among the first labels, retained or not.)

    Raises:
        ValueError: ``labels`` is unknown.
    """

    def __init__(self, labels: str) -> None:
        if labels not in LABELS:
            raise ValueError(
                f'labels is {labels!r}; expected one of {", ".join(map(repr, LABELS))}.'
            )
        self.labels = labels
        self._retained: list[int] = []

    def before_task(self, task: ForgettingTask, classes: Sequence[str]) -> None:
        """Learns which labels are retained and have images of their own."""
        self._retained = [classes.index(name) for name in task.replayed]

    def stream_options(self, stream: str) -> StreamOptions:
        """How the relabelled stream is to be supervised."""
        return StreamOptions(background=stream == FORGET and self.labels == 'background')

    def targets(self, stream: str, data_samples: Sequence[Any]) -> Sequence[Any]:
        """The samples, those of the forget stream with their new labels."""
        if stream != FORGET or self.labels != 'random':
            return data_samples
        return [self._renamed(sample) for sample in data_samples]

    def _renamed(self, sample: Any) -> Any:
        own = independent(sample)
        if 'gt_instances' in own:
            own.gt_instances.labels = self._drawn(own.gt_instances.labels)
        else:
            own.set_field(self._drawn(own.gt_label), 'gt_label')
        return own

    def _drawn(self, labels: torch.Tensor) -> torch.Tensor:
        # The step has seeded the generator.
        choice = torch.randint(len(self._retained), labels.shape)
        return torch.tensor(self._retained)[choice].to(labels)
