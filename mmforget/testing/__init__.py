"""Tiny detectors and tiny data: real parts, small enough to test with."""

from mmforget.testing.large_coco import write_large_coco
from mmforget.testing.tiny import tiny_config, tiny_detector, write_tiny_data
from mmforget.testing.tiny_recognition import (
    TINY_VIT,
    tiny_classifier,
    tiny_recognition_config,
)

__all__ = [
    'TINY_VIT',
    'tiny_classifier',
    'tiny_config',
    'tiny_detector',
    'tiny_recognition_config',
    'write_large_coco',
    'write_tiny_data',
]
