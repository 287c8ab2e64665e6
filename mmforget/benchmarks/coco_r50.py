"""Deformable DETR R50 with 80 classes, as MMDetection's config says, and images of COCO's kind.

Weights, pixels and boxes are random: they decide no cost.
"""

import logging

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn

from mmforget.benchmarks.recipe_step import Batch
from mmforget.methods import FORGET, RETAIN

CONFIG = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
CLASSES = 80
# The mean of COCO's training images.
OBJECTS = 7
DECODER_GROUPS = [f'decoder.layers.{i}' for i in range(6)]
CHOSEN_GROUP = 'decoder.layers.5'


def build_detector(device: str = 'cpu', seed: int = 0) -> nn.Module:
    """The detector with random weights."""
    register_all_modules(init_default_scope=True)
    model = get_config(CONFIG).model
    model.backbone.init_cfg = None
    torch.manual_seed(seed)
    detector = MODELS.build(model)
    logging.disable(logging.INFO)  # A line for every parameter.
    try:
        detector.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    return detector.to(device).eval()


def random_batch(height: int, width: int, images: int = 1, seed: int = 0) -> Batch:
    """One batch of both streams, as a dataloader collates it.

    Args:
        height: Of every image.
        width: Of every image.
        images: Of each stream.
        seed: Of pixels, boxes and labels.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        stream: {
            'inputs': [
                torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)
                for _ in range(images)
            ],
            'data_samples': [_sample(height, width, generator) for _ in range(images)],
        }
        for stream in (FORGET, RETAIN)
    }


def _sample(height: int, width: int, generator: torch.Generator) -> DetDataSample:
    corner = 0.6 * torch.rand(OBJECTS, 2, generator=generator)
    extent = 0.05 + 0.35 * torch.rand(OBJECTS, 2, generator=generator)
    scale = torch.tensor([width, height, width, height])
    sample = DetDataSample(
        metainfo={
            'img_shape': (height, width),
            'ori_shape': (height, width),
            'scale_factor': (1.0, 1.0),
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + extent], dim=1) * scale,
        labels=torch.randint(CLASSES, (OBJECTS,), generator=generator),
    )
    return sample
