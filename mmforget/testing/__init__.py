"""Tiny detectors and tiny data: real parts, small enough to test with."""

from mmforget.testing.tiny import tiny_config, tiny_detector, write_tiny_data

__all__ = ['tiny_config', 'tiny_detector', 'write_tiny_data']
