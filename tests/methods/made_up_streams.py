"""Streams of made-up numbers, for objectives that are checked against their formulas."""

import torch
from mmengine.structures import InstanceData

from mmforget.methods import TaskContext
from mmforget.structures import ForgettingTask, StreamOutput

CLASSES = ('cat', 'cow', 'dog', 'owl')
TASK = ForgettingTask(0, ('cat',), ('cow', 'owl'), ('dog',))


def context(weights=None):
    """Of a detector that nobody looks at."""
    return TaskContext(None, CLASSES, lambda: weights or {})


def stream(images=2, queries=3, seed=0, sigmoid=True, **losses):
    """A stream with random logits and embeddings; queries 0 and 1 are matched with two objects."""
    draw = torch.Generator().manual_seed(seed)

    def numbers(size, grad=True):
        return torch.randn(images, queries, size, generator=draw).requires_grad_(grad)

    teacher = StreamOutput(losses={}, targets=[], logits=numbers(4, False))
    labels = torch.tensor([0, 3])
    return StreamOutput(
        losses={
            name.replace('__', '.'): torch.tensor(value, requires_grad=True)
            for name, value in losses.items()
        },
        targets=[InstanceData(labels=labels, bboxes=torch.zeros(2, 4)) for _ in range(images)],
        logits=numbers(4),
        boxes=numbers(4),
        embeddings=numbers(5),
        matches=[torch.tensor([[0, 0], [1, 1]])] * images,
        sigmoid=sigmoid,
        teacher=teacher,
    )


def total(terms):
    """As mmengine's parse_losses: whatever has 'loss' in its name."""
    return sum(value for name, value in terms.items() if 'loss' in name)
