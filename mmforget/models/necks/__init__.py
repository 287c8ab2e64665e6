"""Necks for MMDetection's detectors."""

from mmforget.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
