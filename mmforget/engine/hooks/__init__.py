"""Hooks, one a file."""

from mmforget.engine.hooks.group_sparse_lora import GroupSparseLoRAHook
from mmforget.engine.hooks.loop_state import LoopStateHook
from mmforget.engine.hooks.trainable import TrainableHook

__all__ = ['GroupSparseLoRAHook', 'LoopStateHook', 'TrainableHook']
