"""MMDetection's Hungarian matching, with the costs of all images in one call.

MMDetection goes image by image: dozens of small operations each, and on CUDA a wait for each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import (
    BBoxL1Cost,
    ClassificationCost,
    FocalLossCost,
    IoUCost,
)
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

# Costs that are computed at once: proposals of two-stage detectors are tens of thousands.
_MOST_COSTS = 2**20


@dataclass(frozen=True)
class _Candidates:
    """Objects of B images, N together, and what is predicted for the images.

    Attributes:
        scores: Logits, (B, Q, C).
        boxes: Predicted boxes, (B, Q, 4), absolute x1, y1, x2, y2.
        objects: True boxes, (N, 4), absolute x1, y1, x2, y2.
        labels: Classes, (N,).
        image: Index of the image, (N,).
        scale: Width, height, width, height of the image, (N, 4).
    """

    scores: Tensor
    boxes: Tensor
    objects: Tensor
    labels: Tensor
    image: Tensor
    scale: Tensor

    def predicted(self) -> Tensor:
        """For each object the boxes predicted for its image, (N, Q, 4)."""
        return self.boxes[self.image]

    def of_images(self, images: slice, objects: slice) -> '_Candidates':
        """Those of some images, whose objects lie at ``objects``."""
        return _Candidates(
            self.scores[images],
            self.boxes[images],
            self.objects[objects],
            self.labels[objects],
            self.image[objects] - images.start,
            self.scale[objects],
        )


def _class_cost(cost: Any, candidates: _Candidates) -> Tensor:
    scores = candidates.scores
    classes = torch.arange(scores.shape[-1], device=scores.device)
    of_all = cost(SimpleNamespace(scores=scores.flatten(0, 1)), SimpleNamespace(labels=classes))
    return of_all.view_as(scores)[candidates.image, :, candidates.labels]


def _box_cost(cost: BBoxL1Cost, candidates: _Candidates) -> Tensor:
    predicted, objects = candidates.predicted(), candidates.objects[:, None]
    if cost.box_format == 'xywh':
        predicted, objects = bbox_xyxy_to_cxcywh(predicted), bbox_xyxy_to_cxcywh(objects)
    scale = candidates.scale[:, None]
    return torch.cdist(predicted / scale, objects / scale, p=1)[..., 0] * cost.weight


def _overlap_cost(cost: IoUCost, candidates: _Candidates) -> Tensor:
    predicted = SimpleNamespace(bboxes=candidates.predicted())
    return cost(predicted, SimpleNamespace(bboxes=candidates.objects[:, None]))[..., 0]


# Others are computed by MMDetection, image by image.
_COSTS: dict[type, Callable[[Any, _Candidates], Tensor]] = {
    FocalLossCost: _class_cost,
    ClassificationCost: _class_cost,
    BBoxL1Cost: _box_cost,
    IoUCost: _overlap_cost,
}


def can_match_at_once(head: nn.Module, instances: Sequence[Any]) -> bool:
    """Whether ``targets_at_once`` gives what the head's own ``get_targets`` would."""
    kind, assigner = type(head), head.assigner
    return (
        kind.get_targets is DETRHead.get_targets
        and kind._get_targets_single is DETRHead._get_targets_single
        and type(assigner) is HungarianAssigner
        and all(
            type(cost) in _COSTS and not getattr(cost, 'binary_input', False)
            for cost in assigner.match_costs
        )
        and all(isinstance(of_image.bboxes, Tensor) for of_image in instances)
    )


@torch.no_grad()
def targets_at_once(
    head: nn.Module,
    scores: Sequence[Tensor],
    boxes: Sequence[Tensor],
    instances: Sequence[Any],
    metas: Sequence[dict],
) -> tuple[tuple, list[Tensor]]:
    """``DETRHead.get_targets`` of one layer, and the matching itself.

    Args:
        head: For which ``can_match_at_once``.
        scores: For each image its logits, (Q, C).
        boxes: For each image its boxes, (Q, 4): centre, width and height, between 0 and 1.
        instances: For each image its ``bboxes`` and ``labels``.
        metas: For each image a dictionary with ``img_shape``.

    Returns:
        What ``get_targets`` gives, and for each image the object of each query, (Q,), counted from
        1; 0 is background.

    Raises:
        ValueError: A cost is not finite.
    """
    predicted = torch.stack(list(boxes))
    images, queries = predicted.shape[:2]
    counts = [len(of_image.labels) for of_image in instances]
    objects = torch.cat([of_image.bboxes for of_image in instances])
    labels = torch.cat([of_image.labels for of_image in instances])
    scales = objects.new_tensor([[*meta['img_shape'][:2]][::-1] * 2 for meta in metas])
    image = torch.from_numpy(np.repeat(np.arange(images), counts)).to(labels.device)
    absolute = bbox_cxcywh_to_xyxy(predicted) * scales[:, None]
    candidates = _Candidates(
        torch.stack(list(scores)), absolute, objects, labels, image, scales[image]
    )
    pairs = _match(head.assigner.match_costs, candidates, counts).to(labels.device)
    matched, place = (image[pairs[1]], pairs[0]), pairs[1]

    gt_inds = labels.new_zeros((images, queries), dtype=torch.long)
    gt_inds[matched] = pairs[2] + 1
    label_targets = labels.new_full((images, queries), head.num_classes, dtype=torch.long)
    label_targets[matched] = labels[place]
    box_weights = objects.new_zeros(predicted.shape)
    box_weights[matched] = 1.0
    box_targets = objects.new_zeros(predicted.shape)
    box_targets[matched] = bbox_xyxy_to_cxcywh(objects / candidates.scale)[place]
    label_weights = objects.new_ones(images, queries)
    positive = pairs.shape[1]
    targets = (label_targets, label_weights, box_targets, box_weights)
    numbers = (positive, images * queries - positive)
    return (*map(list, targets), *numbers), list(gt_inds)


def _match(costs: Sequence[Any], candidates: _Candidates, counts: Sequence[int]) -> Tensor:
    """The matching, (3, M): query, object among all, object among those of its image."""
    found = [np.empty((3, 0), dtype=np.int64)]
    for images in _parts(candidates, counts):
        start = sum(counts[: images.start])
        own = counts[images]
        part = candidates.of_images(images, slice(start, start + sum(own)))
        if not sum(own):
            continue
        total = torch.stack([_COSTS[type(cost)](cost, part) for cost in costs]).sum(dim=0)
        for of_image in total.cpu().split(list(own)):
            queries, objects = linear_sum_assignment(of_image.T)
            found.append(np.stack([queries, objects + start, objects]))
            start += len(of_image)
    return torch.from_numpy(np.concatenate(found, axis=1))


def _parts(candidates: _Candidates, counts: Sequence[int]) -> Iterator[slice]:
    """Images whose costs are computed at once: one at least."""
    queries, classes = candidates.scores.shape[1:]

    def fits(first: int, last: int) -> bool:
        return queries * max(sum(counts[first:last]), (last - first) * classes) <= _MOST_COSTS

    first = 0
    while first < len(counts):
        last = first + 1
        while last < len(counts) and fits(first, last + 1):
            last += 1
        yield slice(first, last)
        first = last
