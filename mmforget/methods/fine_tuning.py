"""Fine-tuning on the retain set."""

from torch import Tensor

from mmforget.methods.base import RETAIN, ForgettingMethod
from mmforget.methods.terms import detection_terms
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput


@METHODS.register_module()
class FineTuning(ForgettingMethod):
    """L = L_det(D_r) (spec C, "rehearsal").

    Forgetting comes only from what is unlabelled in the retain set, which is background there.
    From re-initialised weights (``ReinitialisedHook``) this is Retrain.
    """

    streams = frozenset({RETAIN})

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        return detection_terms(retain.losses, RETAIN)
