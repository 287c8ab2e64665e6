"""What makes class scores out of an embedding: a linear layer, or cosines with a margin."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Module):
    """Scores W x + b.

    Args:
        channels: Channels of the embedding.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, channels) to (B, classes); labels are not looked at."""
        return self.fc(embeddings)


class MarginHead(nn.Module):
    """Cosines between embeddings and class directions, made harder for the true class in training.

    CosFace (arXiv 1801.09414) subtracts the margin from the cosine, ArcFace (arXiv 1801.07698) adds
    it to the angle. A test has no true class, and no margin: the released code of arXiv 2403.11530
    subtracts it there, too, and so understates every accuracy.

    Args:
        channels: Channels of the embedding.
        classes: Number of classes.
        kind: ``'cosface'`` or ``'arcface'``.
        scale: What cosines are multiplied by.
        margin: The margin.

    Raises:
        ValueError: The kind is unknown.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        kind: str = 'cosface',
        scale: float = 64.0,
        margin: float = 0.35,
    ) -> None:
        super().__init__()
        if kind not in ('cosface', 'arcface'):
            raise ValueError(f"MarginHead got kind={kind!r}; expected 'cosface' or 'arcface'.")
        self.kind, self.scale, self.margin = kind, scale, margin
        self.weight = nn.Parameter(torch.empty(classes, channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores.

        Args:
            embeddings: (B, channels).
            labels: (B,) in training; ``None`` in a test: no margin.

        Returns:
            (B, classes).
        """
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.weight))
        if labels is None:
            return self.scale * cosines
        true = F.one_hot(labels, cosines.shape[1]).bool()
        return self.scale * torch.where(true, self._harder(cosines), cosines)

    def _harder(self, cosines: Tensor) -> Tensor:
        if self.kind == 'cosface':
            return cosines - self.margin
        sines = (1 - cosines.square()).clamp(min=1e-12).sqrt()
        harder = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        # Beyond pi - margin the cosine of the sum would rise again.
        beyond = cosines <= math.cos(math.pi - self.margin)
        return torch.where(beyond, cosines - self.margin * math.sin(self.margin), harder)


def build_head(channels: int, classes: int, config: dict[str, Any]) -> nn.Module:
    """A head from ``dict(type='linear')``, or ``dict(type='cosface', scale=64, margin=0.35)``.

    Raises:
        ValueError: The type is unknown.
    """
    arguments = dict(config)
    kind = arguments.pop('type', 'linear')
    if kind == 'linear' and not arguments:
        return LinearHead(channels, classes)
    if kind in ('cosface', 'arcface'):
        return MarginHead(channels, classes, kind, **arguments)
    raise ValueError(
        f"ViTClassifier got head={config!r}; expected dict(type='linear'), or 'cosface' or "
        "'arcface' with scale and margin."
    )
