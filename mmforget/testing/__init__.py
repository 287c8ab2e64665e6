"""Tiny detectors and tiny data: real parts, small enough to test with."""

from mmforget.testing.large_coco import write_large_coco
from mmforget.testing.tiny import tiny_config, tiny_detector, write_tiny_data

__all__ = ['tiny_config', 'tiny_detector', 'write_large_coco', 'write_tiny_data']
