"""Classifiers, for recognition as in the paper."""

from mmforget.models.classifiers.vit_classifier import ViTClassifier

__all__ = ['ViTClassifier']
