"""Backbones for MMDetection's detectors."""

from mmforget.models.backbones.conv_stem import ConvStem
from mmforget.models.backbones.mimdet_hybrid import MIMDetHybrid
from mmforget.models.backbones.mobilenet_stem import MobileNetV2Stem
from mmforget.models.backbones.timm_vit import TimmViT

__all__ = ['ConvStem', 'MIMDetHybrid', 'MobileNetV2Stem', 'TimmViT']
