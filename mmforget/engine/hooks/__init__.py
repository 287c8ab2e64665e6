"""Hooks, one a file."""

from mmforget.engine.hooks.curves import ForgettingCurvesHook
from mmforget.engine.hooks.full_fine_tuning import FullFineTuningHook
from mmforget.engine.hooks.group_sparse_lora import GroupSparseLoRAHook
from mmforget.engine.hooks.loop_state import LoopStateHook
from mmforget.engine.hooks.pictures import ForgettingPicturesHook
from mmforget.engine.hooks.progress import ProgressHook
from mmforget.engine.hooks.random_drop import RandomDropHook
from mmforget.engine.hooks.reinitialised import ReinitialisedHook
from mmforget.engine.hooks.trainable import TrainableHook

__all__ = [
    'ForgettingCurvesHook',
    'ForgettingPicturesHook',
    'FullFineTuningHook',
    'GroupSparseLoRAHook',
    'LoopStateHook',
    'ProgressHook',
    'RandomDropHook',
    'ReinitialisedHook',
    'TrainableHook',
]
