"""Relabelling at random."""

from mmforget.methods.relabelled_replay import RelabelledReplay
from mmforget.registry import METHODS


@METHODS.register_module()
class RandomLabels(RelabelledReplay):
    """L = w_r·L_det(D_r) + w_f·L_det(D̃_f): forgotten objects get the names of retained classes.

    A name is drawn anew each time an object is seen (Golatkar et al., arXiv 1911.04933; spec C,
    classification).

    Args:
        retain_weight: w_r.
        forget_weight: w_f.
    """

    def __init__(self, retain_weight: float = 1.0, forget_weight: float = 1.0) -> None:
        super().__init__('random', retain_weight, forget_weight)
