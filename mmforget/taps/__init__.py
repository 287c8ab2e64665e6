"""One file per detector family: everything a method needs out of one forward."""

from mmforget.taps.base import Stream, StreamOptions, Tap, build_tap, find_tap
from mmforget.taps.classifier import ClassifierTap
from mmforget.taps.dense import DenseTap
from mmforget.taps.detr import DeformableDETRTap, DETRTap
from mmforget.taps.dino import DINOTap
from mmforget.taps.mask_former import MaskFormerTap
from mmforget.taps.stages import Stage, at_once
from mmforget.taps.trunk_batch import SMALL_IMAGE
from mmforget.taps.trunk_cache import TrunkCache
from mmforget.taps.two_stage import TwoStageTap

__all__ = [
    'SMALL_IMAGE',
    'ClassifierTap',
    'MaskFormerTap',
    'DETRTap',
    'DINOTap',
    'DeformableDETRTap',
    'DenseTap',
    'Stage',
    'Stream',
    'StreamOptions',
    'Tap',
    'TrunkCache',
    'TwoStageTap',
    'at_once',
    'build_tap',
    'find_tap',
]
