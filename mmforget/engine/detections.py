"""What a detector finds on single images of a data set, looked up beside the run."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.dataset import pseudo_collate
from torch import nn

from mmforget.engine.randomness import preserved_generators
from mmforget.engine.results import write_atomically
from mmforget.visualization.detection_panel import Boxes


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module goes back to the mode it was in.

    ``model.train()`` afterwards would wake the frozen modules, too.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def detect(model: nn.Module, dataset: Any, images: Sequence[int]) -> dict[int, Boxes]:
    """Runs the detector on a few images and leaves no trace in it or in any generator.

    Args:
        model: The plain detector.
        dataset: The validation data set with its pipeline.
        images: Indices of images; each makes a batch of its own.

    Returns:
        Index -> all that was found, whatever its score.
    """
    found = {}
    with preserved_generators(), evaluating(model), torch.no_grad():
        for image in images:
            (sample,) = model.val_step(pseudo_collate([dataset[image]]))
            instances = sample.pred_instances
            found[image] = Boxes(
                boxes=get_box_tensor(instances.bboxes).cpu().numpy(),
                labels=instances.labels.cpu().numpy(),
                scores=instances.scores.float().cpu().numpy(),
            )
    return found


def ground_truth(dataset: Any, image: int) -> Boxes:
    """The annotated objects of an image, ignored ones left out."""
    objects = [o for o in dataset.get_data_info(image)['instances'] if not o.get('ignore_flag')]
    return Boxes(
        boxes=np.array([o['bbox'] for o in objects], dtype=float).reshape(-1, 4),
        labels=np.array([o['bbox_label'] for o in objects], dtype=int),
    )


def save_detections(path: Path, found: Mapping[int, Boxes]) -> None:
    """Writes detections whole or not at all, so that a resumed run has them."""
    os.makedirs(path.parent, exist_ok=True)
    document = {
        str(image): {
            'boxes': boxes.boxes.tolist(),
            'labels': boxes.labels.tolist(),
            'scores': boxes.scores.tolist(),
        }
        for image, boxes in found.items()
    }
    write_atomically(path, json.dumps(document) + '\n')


def load_detections(path: Path) -> dict[int, Boxes]:
    """Reads what ``save_detections`` wrote."""
    document = json.loads(path.read_text())
    return {
        int(image): Boxes(
            boxes=np.array(entry['boxes'], dtype=float).reshape(-1, 4),
            labels=np.array(entry['labels'], dtype=int),
            scores=np.array(entry['scores'], dtype=float),
        )
        for image, entry in document.items()
    }
