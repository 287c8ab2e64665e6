"""Hooks, one a file."""

from mmforget.engine.hooks.group_sparse_lora import GroupSparseLoRAHook
from mmforget.engine.hooks.loop_state import LoopStateHook
from mmforget.engine.hooks.pictures import ForgettingPicturesHook
from mmforget.engine.hooks.progress import ProgressHook
from mmforget.engine.hooks.trainable import TrainableHook

__all__ = [
    'ForgettingPicturesHook',
    'GroupSparseLoRAHook',
    'LoopStateHook',
    'ProgressHook',
    'TrainableHook',
]
