"""A Deformable DETR of 30 thousand weights and a few dozen real Garments scenes."""

import json
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config

from mmforget.datasets.garments_scenes import CLASSES, compose_scene, scenes_to_coco

TINY_SIZE = 64


def tiny_detector(dropout: float = 0.1) -> dict[str, Any]:
    """The model config: every part of the real one, two layers each, with dropout awake."""
    channels = 16
    ffn = {'embed_dims': channels, 'feedforward_channels': 32, 'ffn_drop': dropout}
    attention = {'embed_dims': channels, 'num_heads': 2, 'num_levels': 2, 'dropout': dropout}
    deformable = {**attention, 'num_points': 2, 'batch_first': True}
    self_attention = {
        'embed_dims': channels,
        'num_heads': 2,
        'dropout': dropout,
        'batch_first': True,
    }
    return {
        'type': 'DeformableDETR',
        'num_queries': 12,
        'num_feature_levels': 2,
        'with_box_refine': True,
        'as_two_stage': False,
        'data_preprocessor': {
            'type': 'DetDataPreprocessor',
            'mean': [123.675, 116.28, 103.53],
            'std': [58.395, 57.12, 57.375],
            'bgr_to_rgb': True,
            'pad_size_divisor': 1,
        },
        # norm_eval stays False: BatchNorm statistics must be kept still by mmforget itself.
        'backbone': {'type': 'MobileNetV2', 'widen_factor': 0.1, 'out_indices': (4, 6)},
        'neck': {
            'type': 'ChannelMapper',
            'in_channels': [16, 32],
            'kernel_size': 1,
            'out_channels': channels,
            'act_cfg': None,
            'norm_cfg': {'type': 'GN', 'num_groups': 4},
            'num_outs': 2,
        },
        'encoder': {
            'num_layers': 2,
            'layer_cfg': {'self_attn_cfg': deformable, 'ffn_cfg': ffn},
        },
        'decoder': {
            'num_layers': 2,
            'return_intermediate': True,
            'layer_cfg': {
                'self_attn_cfg': self_attention,
                'cross_attn_cfg': deformable,
                'ffn_cfg': ffn,
            },
            'post_norm_cfg': None,
        },
        'positional_encoding': {'num_feats': channels // 2, 'normalize': True, 'offset': -0.5},
        'bbox_head': {
            'type': 'DeformableDETRHead',
            'num_classes': len(CLASSES),
            'embed_dims': channels,
            'sync_cls_avg_factor': True,
            'loss_cls': {
                'type': 'FocalLoss',
                'use_sigmoid': True,
                'gamma': 2.0,
                'alpha': 0.25,
                'loss_weight': 2.0,
            },
            'loss_bbox': {'type': 'L1Loss', 'loss_weight': 5.0},
            'loss_iou': {'type': 'GIoULoss', 'loss_weight': 2.0},
        },
        'train_cfg': {
            'assigner': {
                'type': 'HungarianAssigner',
                'match_costs': [
                    {'type': 'FocalLossCost', 'weight': 2.0},
                    {'type': 'BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'},
                    {'type': 'IoUCost', 'iou_mode': 'giou', 'weight': 2.0},
                ],
            }
        },
        'test_cfg': {'max_per_img': 20},
    }


def write_tiny_data(folder: str | Path, train: int = 32, val: int = 8) -> Path:
    """Writes the first Garments scenes as PNG files and COCO JSON; returns the folder."""
    folder = Path(folder)
    (folder / 'annotations').mkdir(parents=True, exist_ok=True)
    for split, number in (('train', train), ('val', val)):
        (folder / split).mkdir(exist_ok=True)
        scenes = [compose_scene(split, index) for index in range(number)]
        for index, scene in enumerate(scenes):
            cv2.imwrite(str(folder / split / f'{index:06d}.png'), scene.pixels[..., ::-1])
        document = scenes_to_coco(split, scenes)
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(document))
    return folder


def tiny_config(data: str | Path, work_dir: str | Path, **overrides: Any) -> Config:
    """A whole training config on the tiny detector and data: two tasks of a few steps.

    Args:
        data: What ``write_tiny_data`` wrote.
        work_dir: The work dir.
        **overrides: Merged into the config by mmengine's rules, dots allowed in keys.
    """
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        {'type': 'Resize', 'scale': (TINY_SIZE, TINY_SIZE), 'keep_ratio': True},
    ]
    train_pipeline = [*pipeline, {'type': 'RandomFlip', 'prob': 0.5}, {'type': 'PackDetInputs'}]
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    test_pipeline = [*pipeline, {'type': 'PackDetInputs', 'meta_keys': keys}]

    def dataset(split: str, transforms: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            'type': 'CocoDataset',
            'metainfo': {'classes': CLASSES},
            'data_root': str(data),
            'ann_file': f'annotations/{split}.json',
            'data_prefix': {'img': f'{split}/'},
            'test_mode': split == 'val',
            'pipeline': transforms,
        }

    metric = {
        'type': 'mmforget.ForgettingCocoMetric',
        'ann_file': f'{data}/annotations/val.json',
        'metric': 'bbox',
    }
    config = Config(
        {
            'default_scope': 'mmdet',
            'custom_imports': {'imports': ['mmforget'], 'allow_failed_imports': False},
            'model': tiny_detector(),
            'work_dir': str(work_dir),
            'train_dataloader': {
                'batch_size': 2,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler', 'shuffle': True},
                'dataset': dataset('train', train_pipeline),
            },
            'val_dataloader': {
                'batch_size': 4,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'dataset': dataset('val', test_pipeline),
            },
            'train_cfg': {
                'type': 'mmforget.ContinualForgettingLoop',
                'scenario': {
                    'tasks': [['bag', 'sneaker'], ['dress']],
                    'forget': {'images': 6},
                    'retain': {'images': 8},
                },
                'max_steps': 4,
                'method': {'type': 'mmforget.GSLoRA'},
            },
            'val_cfg': {'type': 'ValLoop'},
            'optim_wrapper': {
                'type': 'OptimWrapper',
                'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 1e-4},
                'clip_grad': {'max_norm': 1.0},
            },
            'param_scheduler': [{'type': 'CosineAnnealingLR', 'by_epoch': False}],
            'custom_hooks': [{'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2}],
            'val_evaluator': metric,
            'default_hooks': {
                'logger': {'type': 'LoggerHook', 'interval': 1},
                'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            },
            'randomness': {'seed': 3},
            'log_level': 'WARNING',
        }
    )
    config.merge_from_dict(overrides)
    return config
