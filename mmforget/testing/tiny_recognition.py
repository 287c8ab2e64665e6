"""A vision transformer of 30 thousand weights that tells garments apart, and its config."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

TINY_VIT = {'img_size': 28, 'patch_size': 7, 'embed_dim': 32, 'depth': 3, 'num_heads': 2}


def tiny_classifier() -> dict[str, Any]:
    """The model config."""
    return {
        'type': 'mmforget.ViTClassifier',
        'model_name': 'vit_tiny_patch16_224',
        'num_classes': 10,
        'timm_args': TINY_VIT,
        'data_preprocessor': {
            'type': 'ImgDataPreprocessor',
            'mean': [72.9] * 3,
            'std': [90.0] * 3,
        },
    }


def tiny_recognition_config(
    work_dir: str | Path, load_from: str | Path, **overrides: Any
) -> Config:
    """A whole config of forgetting on single garments: two tasks.

    Args:
        work_dir: The work dir.
        load_from: Checkpoint of ``tiny_classifier``.
        **overrides: Merged into the config by mmengine's rules, dots allowed in keys.
    """
    pipeline = [{'type': 'LoadImageFromNDArray'}, {'type': 'mmforget.PackRecognition'}]

    def loader(split: str, batch_size: int) -> dict[str, Any]:
        return {
            'batch_size': batch_size,
            'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': split == 'train'},
            'dataset': {'type': 'mmforget.GarmentSprites', 'split': split, 'pipeline': pipeline},
        }

    config = Config(
        {
            'default_scope': 'mmdet',
            'custom_imports': {'imports': ['mmforget'], 'allow_failed_imports': False},
            'model': tiny_classifier(),
            'load_from': str(load_from),
            'work_dir': str(work_dir),
            'train_dataloader': loader('train', 16),
            'val_dataloader': loader('val', 100),
            'train_cfg': {
                'type': 'mmforget.ContinualForgettingLoop',
                'scenario': {
                    'tasks': [['bag'], ['trouser', 'sandal']],
                    'forget': {'images': 32, 'augmentations': 1},
                    'retain': {'images': 128, 'augmentations': 1},
                },
                'max_steps': 24,
                'method': {'type': 'mmforget.GSLoRA', 'forget_weight': 0.3, 'bound': 6},
                'trunk_cache_mb': 64,
            },
            'val_cfg': {'type': 'ValLoop'},
            'optim_wrapper': {
                'type': 'OptimWrapper',
                'optimizer': {'type': 'AdamW', 'lr': 2e-2},
            },
            'param_scheduler': [{'type': 'CosineAnnealingLR', 'by_epoch': False}],
            'custom_hooks': [{'type': 'mmforget.GroupSparseLoRAHook', 'rank': 4, 'alpha': 4}],
            'val_evaluator': {'type': 'mmforget.ForgettingAccuracy'},
            'randomness': {'seed': 1},
            'log_level': 'WARNING',
        }
    )
    config.merge_from_dict(overrides)
    return config
