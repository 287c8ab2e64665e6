"""Tap for two-stage detectors: Faster, Mask and Cascade R-CNN."""

from torch import nn

from mmforget.registry import TAPS
from mmforget.taps.feature_tap import FeatureTap


@TAPS.register_module(name='TwoStageDetector')
class TwoStageTap(FeatureTap):
    """Reads mmdet's ``TwoStageDetector`` detectors with their own region proposals.

    Proposals tell objects from background and name no class: their losses (``loss_rpn_...``) are
    never turned round.
    """

    mean_over_matched = True

    def class_heads(self) -> list[nn.Module]:
        heads = self.detector.roi_head.bbox_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]
