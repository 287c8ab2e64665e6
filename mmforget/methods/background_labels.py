"""Relabelling to background."""

from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.registry import METHODS


@METHODS.register_module()
class BackgroundLabels(RelabelledReplay):
    """L = w_r·L_det(D_r) + w_f·L_det(D̃_f): forgotten objects are told to be background (spec C).

    For detectors, whose heads know a background; classifiers have ``RandomLabels``.

    Args:
        retain_weight: w_r.
        forget_weight: w_f.
    """

    def __init__(self, retain_weight: float = 1.0, forget_weight: float = 1.0) -> None:
        super().__init__('background', retain_weight, forget_weight)
