"""Tap for two-stage detectors: Faster, Mask and Cascade R-CNN."""

from contextlib import AbstractContextManager, nullcontext

from torch import nn

from mmforget.registry import TAPS
from mmforget.taps.feature_tap import FeatureTap
from mmforget.taps.replaced import replaced


@TAPS.register_module(name='TwoStageDetector')
class TwoStageTap(FeatureTap):
    """Reads mmdet's ``TwoStageDetector`` detectors with their own region proposals.

    Proposals tell objects from background and name no class: their losses (``loss_rpn_...``) are
    never turned round. Masks are neither computed nor scored in training where neither features
    nor the mask head can move: half of a step's time.
    """

    mean_over_matched = True

    def class_heads(self) -> list[nn.Module]:
        heads = self.detector.roi_head.bbox_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]

    def idle_branch(self) -> AbstractContextManager[None]:
        head = getattr(self.detector.roi_head, 'mask_head', None)
        if head is None or any(parameter.requires_grad for parameter in head.parameters()):
            return nullcontext()
        return replaced(self.detector.roi_head, 'mask_head', None)
