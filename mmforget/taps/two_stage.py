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
    never turned round. Masks are neither computed nor scored in training where nothing but boxes'
    own head can move: half of a step's time.
    """

    mean_over_matched = True

    def class_heads(self) -> list[nn.Module]:
        heads = self.detector.roi_head.bbox_head
        return list(heads) if isinstance(heads, nn.ModuleList) else [heads]

    def idle_branch(self) -> AbstractContextManager[None]:
        roi_head = self.detector.roi_head
        moving = {
            name
            for name, parameter in roi_head.named_parameters()
            if parameter.requires_grad and not name.startswith('bbox_head.')
        }
        # A shared head, or one that rates masks, needs them as the mask head itself does.
        if getattr(roi_head, 'mask_head', None) is None or moving:
            return nullcontext()
        return replaced(roi_head, 'mask_head', None)
