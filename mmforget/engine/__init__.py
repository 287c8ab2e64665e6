"""The loop, its step and its hooks: the only room that talks to the Runner."""

from mmforget.engine.hooks import ForgettingPicturesHook, GroupSparseLoRAHook, TrainableHook
from mmforget.engine.log_processor import ForgettingLogProcessor
from mmforget.engine.loops import ContinualForgettingLoop
from mmforget.engine.preview import PreviewLoop, RunPreview
from mmforget.engine.step import ForgettingStep

__all__ = [
    'ContinualForgettingLoop',
    'ForgettingLogProcessor',
    'ForgettingPicturesHook',
    'ForgettingStep',
    'GroupSparseLoRAHook',
    'PreviewLoop',
    'RunPreview',
    'TrainableHook',
]
