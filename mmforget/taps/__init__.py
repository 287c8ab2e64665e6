"""One file per detector family: everything a method needs out of one forward."""

from mmforget.taps.base import Stream, StreamOptions, Tap, build_tap
from mmforget.taps.detr import DeformableDETRTap, DETRTap
from mmforget.taps.stages import Stage
from mmforget.taps.trunk_cache import TrunkCache

__all__ = [
    'DETRTap',
    'DeformableDETRTap',
    'Stage',
    'Stream',
    'StreamOptions',
    'Tap',
    'TrunkCache',
    'build_tap',
]
