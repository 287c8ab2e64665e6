"""Prototypes of classes, and how far matched embeddings are from them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmforget.structures import StreamOutput


def matched_embeddings(output: StreamOutput) -> tuple[Tensor, Tensor]:
    """Embeddings of the queries that are matched with an object, and the objects' labels.

    Args:
        output: With ``embeddings``, ``matches`` and ``targets``.

    Returns:
        (M, D) and (M,); M may be 0.
    """
    embeddings, labels = [], []
    for of_image, pairs, target in zip(
        output.embeddings, output.matches, output.targets, strict=True
    ):
        own = target.gt_label if hasattr(target, 'gt_label') else target.labels
        embeddings.append(of_image[pairs[:, 0]])
        labels.append(own.to(pairs.device)[pairs[:, 1]])
    return torch.cat(embeddings), torch.cat(labels)


def prototype_distance(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """Mean of KL(softmax(prototype) ‖ softmax(embedding)), 0 without any (spec B.5).

    Args:
        embeddings: (M, D).
        prototypes: (M, D), each that of the embedding's class; no gradient reaches them.
    """
    if not len(embeddings):
        return embeddings.sum()
    return F.kl_div(
        F.log_softmax(embeddings.float(), -1),
        F.log_softmax(prototypes.detach().float(), -1),
        reduction='batchmean',
        log_target=True,
    )


@torch.no_grad()
def mean_embeddings(outputs: Iterable[StreamOutput]) -> dict[int, Tensor]:
    """The mean embedding of each class that occurs, by label."""
    total: dict[int, Tensor] = {}
    count: dict[int, int] = {}
    for output in outputs:
        for embedding, label in zip(*matched_embeddings(output), strict=True):
            key = int(label)
            total[key] = total.get(key, 0) + embedding
            count[key] = count.get(key, 0) + 1
    return {label: value / count[label] for label, value in total.items()}


def of_labels(prototypes: Mapping[int, Tensor], labels: Tensor) -> tuple[Tensor, Sequence[int]]:
    """The prototypes of some labels.

    Args:
        prototypes: By label.
        labels: (M,).

    Returns:
        (N, D) and the N places among the labels that have one.
    """
    places = [place for place, label in enumerate(labels.tolist()) if label in prototypes]
    if not places:
        size = len(next(iter(prototypes.values()))) if prototypes else 0
        return labels.new_zeros((0, size), dtype=torch.float32), places
    return torch.stack([prototypes[int(labels[place])] for place in places]), places
