"""Dark experience replay with labels."""

from mmforget.methods.der import DER
from mmforget.methods.terms import check_weights
from mmforget.registry import METHODS


@METHODS.register_module()
class DERPlusPlus(DER):
    """DER + λ'·L_det(D_r) (arXiv 2004.07211; spec C).

    The authors take the labels of another replay batch than the logits; here one batch has both.

    Args:
        strength: λ, see :class:`~mmforget.methods.der.DER`.
        retain_weight: λ'; 0.1 in the authors' detection runs.
        **arguments: See :class:`~mmforget.methods.der.DER`.
    """

    def __init__(
        self, strength: float = 0.01, retain_weight: float = 0.1, **arguments: object
    ) -> None:
        super().__init__(strength, **arguments)
        check_weights('DERPlusPlus', retain_weight=retain_weight)
        self.retain_weight = retain_weight
