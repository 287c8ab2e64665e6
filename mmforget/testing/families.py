"""Every detector family of MMDetection that mmforget knows, checked on a real config of it."""

import copy
import logging
from dataclasses import dataclass, field
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

_SWIN = 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
_PVT = 'pvt/retinanet_pvt-t_fpn_1x_coco.py'
_FASTER_RCNN = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
_DEFORMABLE_DETR = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'


@dataclass(frozen=True)
class Family:
    """How a family's detector is put together.

    Attributes:
        config: One of MMDetection's configs.
        backbone_of: Another one, whose backbone takes the place of the first one's; ``None``: none.
        parts: Parts of the model that take the place of the config's.
    """

    config: str
    backbone_of: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is built, in Markdown."""
        text = f'`{_stem(self.config)}`'
        if self.backbone_of is not None:
            text += f', backbone of `{_stem(self.backbone_of)}`'
        kinds = [f'`{part["type"]}`' for part in self.parts.values() if 'type' in part]
        return f'{text}, {", ".join(kinds)}' if kinds else text


def _stem(config: str) -> str:
    return config.rpartition('/')[2].removesuffix('.py')


def _plain_vit(name: str, channels: int, **timm_args: Any) -> dict[str, Any]:
    """A plain transformer and ViTDet's pyramid."""
    backbone = {
        'type': 'mmforget.TimmViT',
        'model_name': name,
        'img_size': 224,
        'window_size': 4,
        'timm_args': timm_args,
    }
    neck = {
        'type': 'mmforget.SimpleFeaturePyramid',
        'in_channels': channels,
        'out_channels': 256,
        'num_outs': 5,
    }
    return {'backbone': backbone, 'neck': neck}


#: Name of a family -> how it is built.
FAMILIES = {
    'DETR': Family('detr/detr_r50_8xb2-150e_coco.py'),
    'Conditional DETR': Family('conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'),
    'DAB-DETR': Family('dab_detr/dab-detr_r50_8xb2-50e_coco.py'),
    'Deformable DETR': Family(_DEFORMABLE_DETR),
    'Deformable DETR, box refinement': Family(
        'deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
    ),
    'Deformable DETR, two-stage': Family(
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    ),
    'DINO': Family('dino/dino-4scale_r50_8xb2-12e_coco.py'),
    'Mask2Former': Family('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'),
    'Mask2Former on Swin': Family('mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py'),
    'Faster R-CNN on Swin': Family(_FASTER_RCNN, backbone_of=_SWIN),
    'Mask R-CNN on Swin': Family(_SWIN),
    'Cascade R-CNN on Swin': Family(
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', backbone_of=_SWIN
    ),
    'RetinaNet on Swin': Family('swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'),
    'Faster R-CNN on PVT': Family(_FASTER_RCNN, backbone_of=_PVT),
    'RetinaNet on PVT': Family(_PVT),
    'RetinaNet on PVTv2': Family('pvt/retinanet_pvtv2-b0_fpn_1x_coco.py'),
    'Faster R-CNN on ViT': Family(_FASTER_RCNN, parts=_plain_vit('vit_small_patch16_224', 384)),
    'Faster R-CNN on DeiT III': Family(
        _FASTER_RCNN, parts=_plain_vit('deit3_small_patch16_224', 384)
    ),
    'Faster R-CNN on EVA-02': Family(
        _FASTER_RCNN, parts=_plain_vit('eva02_tiny_patch14_224', 192, patch_size=16)
    ),
    'Deformable DETR on MIMDet': Family(
        _DEFORMABLE_DETR,
        parts={
            'backbone': {
                'type': 'mmforget.MIMDetHybrid',
                'model_name': 'vit_small_patch16_224',
                'decoder_depth': 2,
                'sample_ratio': (0.25, 0.5),
            },
            'neck': {'in_channels': [48, 96, 256, 256], 'num_outs': 4},
        },
    ),
    'Faster R-CNN': Family(_FASTER_RCNN),
    'Mask R-CNN': Family('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'),
    'Cascade R-CNN': Family('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'),
    'RetinaNet': Family('retinanet/retinanet_r50_fpn_1x_coco.py'),
    'FCOS': Family('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'),
    'ATSS': Family('atss/atss_r50_fpn_1x_coco.py'),
    'GFL': Family('gfl/gfl_r50_fpn_1x_coco.py'),
    'YOLOX': Family('yolox/yolox_s_8xb8-300e_coco.py'),
    'RTMDet': Family('rtmdet/rtmdet_tiny_8xb32-300e_coco.py'),
}
_SIDE = 224
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
    config = _config_of(FAMILIES[name])
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


def _config_of(family: Family) -> Any:
    """The config of a family's detector."""
    config = get_config(f'mmdet::{family.config}').model
    if family.backbone_of is not None:
        other = get_config(f'mmdet::{family.backbone_of}').model
        config.backbone = other.backbone
        config.neck.in_channels = other.neck.in_channels
    for part, given in family.parts.items():
        if 'type' in given:
            config[part] = copy.deepcopy(given)
        else:
            config[part].update(given)
    return config


def check_family(name: str, rank: int = 8) -> FamilyRow:
    """Injects, takes one step of forgetting, folds, and compares outputs bit by bit."""
    detector = build_family(name)
    weights = sum(parameter.numel() for parameter in detector.parameters())
    targets = 'ffn' if transformer_blocks(detector) else 'conv'
    part = GroupSparseLoRA(rank, targets=targets, group_by='block' if targets == 'ffn' else 'stage')
    masks = detector.data_preprocessor.pad_mask
    batch = {'forget': _images(0, masks), 'retain': _images(1, masks)}
    # torch's matmul sums in another order where a weight requires a gradient, even under no_grad.
    detector.requires_grad_(False)
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


def _images(seed: int, with_masks: bool) -> dict[str, Any]:
    """One random image with three objects: boxes, and masks where the detector learns them."""
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
    )
    if with_masks:
        sample.gt_instances.masks = BitmapMasks(masks, _SIDE, _SIDE)
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
