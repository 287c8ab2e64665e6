"""Every detector family of MMDetection that mmforget knows, checked on a real config of it."""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmforget.adapters import transformer_blocks
from mmforget.engine.step import ForgettingStep
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.trainable import GroupSparseLoRA

#: Family -> one of its configs in MMDetection.
FAMILIES = {
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Conditional DETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'Deformable DETR, box refinement': (
        'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
    ),
    'Deformable DETR, two-stage': (
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    ),
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'Mask2Former on Swin': 'mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
    'Mask R-CNN on Swin': 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'RetinaNet on Swin': 'swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'RetinaNet on PVT': 'pvt/retinanet_pvt-t_fpn_1x_coco.py',
    'RetinaNet on PVTv2': 'pvt/retinanet_pvtv2-b0_fpn_1x_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'YOLOX': 'yolox/yolox_s_8xb8-300e_coco.py',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}
_SIDE = 128
_TASK = ForgettingTask(0, ('person',), ('bicycle',), ())


@dataclass(frozen=True)
class FamilyRow:
    """What was found for one family.

    Attributes:
        family: Its name.
        tap: What reads it.
        targets: Where adapters go.
        groups: Number of groups.
        layers: Number of layers with an adapter.
        trainable: Weights that may move, at rank 8.
        share: Of the detector's weights.
        same_output: Injection changed no bit of the output.
        finite_step: One step of forgetting gave finite losses, and moved something.
        same_merged: Folding changed no bit of the output after the step.
    """

    family: str
    tap: str
    targets: str
    groups: int
    layers: int
    trainable: int
    share: float
    same_output: bool
    finite_step: bool
    same_merged: bool


def build_family(name: str) -> nn.Module:
    """The detector of a family's config with random weights; nothing is fetched."""
    register_all_modules(init_default_scope=True)
    config = get_config(f'mmdet::{FAMILIES[name]}').model
    _forget_pretrained(config)
    config.data_preprocessor.batch_augments = None
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    try:
        detector = MODELS.build(config)
        detector.init_weights()
    finally:
        logging.disable(logging.NOTSET)
    return detector.eval()


def check_family(name: str, rank: int = 8) -> FamilyRow:
    """Injects, takes one step of forgetting, folds, and compares outputs bit by bit."""
    detector = build_family(name)
    weights = sum(parameter.numel() for parameter in detector.parameters())
    targets = 'ffn' if transformer_blocks(detector) else 'conv'
    part = GroupSparseLoRA(rank, targets=targets, group_by='block' if targets == 'ffn' else 'stage')
    batch = {'forget': _images(0), 'retain': _images(1)}
    before = outputs_of(detector, batch['forget'])
    part.inject(detector, _TASK, 0)
    same_output = _equal(outputs_of(detector, batch['forget']), before)
    tap = build_tap(detector)
    step = ForgettingStep(detector, tap, GSLoRA(matched_only=True), part)
    trainable = sum(parameter.numel() for parameter in part.parameters())
    groups, layers = len(part.groups), len(part.adapters)
    finite = _take_step(step, batch)
    step.eval()
    moved = outputs_of(detector, batch['forget'])
    part.fold(detector)
    return FamilyRow(
        family=name,
        tap=type(tap).__name__,
        targets=targets,
        groups=groups,
        layers=layers,
        trainable=trainable,
        share=trainable / weights,
        same_output=same_output,
        finite_step=finite and not _equal(moved, before),
        same_merged=_equal(outputs_of(detector, batch['forget']), moved),
    )


@torch.no_grad()
def outputs_of(detector: nn.Module, data: dict[str, Any]) -> list[Tensor]:
    """All tensors that the detector gives for one stream's images, before any threshold."""
    detector.eval()
    torch.manual_seed(0)
    processed = detector.data_preprocessor(copy.deepcopy(data), training=False)
    given = detector(processed['inputs'], processed['data_samples'], mode='tensor')
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]


def _take_step(step: ForgettingStep, batch: dict[str, Any]) -> bool:
    """One step of an optimiser that moves everything alike; whether all of it was finite."""
    torch.manual_seed(0)
    step.train()
    losses = step(copy.deepcopy(batch), 0)
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    parameters = step.trainable.parameters()
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch.optim.SGD(parameters, lr=1.0).step()
    with torch.no_grad():  # A step of a size that shows, whatever the gradient's.
        for name, parameter in step.detector.named_parameters():
            if name.endswith('lora_B'):
                parameter.add_(1e-3 * torch.randn_like(parameter))
    return bool(total.isfinite()) and all(bool(g.isfinite().all()) for g in gradients)


def _equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


def _images(seed: int) -> dict[str, Any]:
    """One random image with three objects, boxes and masks."""
    generator = np.random.default_rng(seed)
    pixels = torch.from_numpy(generator.integers(0, 256, (3, _SIDE, _SIDE), dtype=np.uint8))
    corners = generator.uniform(0, _SIDE / 2, (3, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(24, 60, (3, 2))], axis=1)
    masks = np.zeros((3, _SIDE, _SIDE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo={
            'img_shape': (_SIDE, _SIDE),
            'ori_shape': (_SIDE, _SIDE),
            'scale_factor': (1.0, 1.0),
            'img_id': seed,
        }
    )
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32)),
        labels=torch.from_numpy(generator.integers(0, 80, 3)),
        masks=BitmapMasks(masks, _SIDE, _SIDE),
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
    )
    return {'inputs': [pixels], 'data_samples': [sample]}


def _forget_pretrained(config: Any) -> None:
    """Takes out what would be fetched."""
    if isinstance(config, dict):
        for key in ('init_cfg', 'pretrained'):
            own = config.get(key)
            if isinstance(own, str) or (isinstance(own, dict) and 'checkpoint' in own):
                config[key] = None
        for value in config.values():
            _forget_pretrained(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _forget_pretrained(value)
