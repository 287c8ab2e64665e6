"""Data: the embedded benchmark and the streams of a forgetting task."""

from mmforget.datasets.garments import GarmentsDataset

__all__ = ['GarmentsDataset']
