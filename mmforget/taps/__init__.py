"""One file per detector family: everything a method needs out of one forward."""

from mmforget.taps.base import Stream, StreamOptions, Tap, build_tap
from mmforget.taps.detr import DeformableDETRTap, DETRTap
from mmforget.taps.detr_trunk import SMALL_IMAGE
from mmforget.taps.stages import Stage, at_once
from mmforget.taps.trunk_cache import TrunkCache

__all__ = [
    'SMALL_IMAGE',
    'DETRTap',
    'DeformableDETRTap',
    'Stage',
    'Stream',
    'StreamOptions',
    'Tap',
    'TrunkCache',
    'at_once',
    'build_tap',
]
