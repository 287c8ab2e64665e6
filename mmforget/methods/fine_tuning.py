"""Fine-tuning on the retain set."""

from torch import Tensor

from mmforget.methods.base import RETAIN, ForgettingMethod
from mmforget.methods.terms import detection_terms
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput
from mmforget.taps import StreamOptions


@METHODS.register_module()
class FineTuning(ForgettingMethod):
    """L = L_det(D_r) (spec C, "rehearsal").

    Forgetting comes only from what is unlabelled in the retain set, which is background there.
    From re-initialised weights (``ReinitialisedHook``) this is Retrain, as far as the tap gives the
    detector's own losses (of DINO, denoising and proposals have none).

    Args:
        auxiliary: Uses the losses of every decoder layer, as detectors are trained from scratch.
            Without it no gradient reaches box branches of lower layers.
    """

    streams = frozenset({RETAIN})

    def __init__(self, auxiliary: bool = False) -> None:
        self.auxiliary = auxiliary

    def stream_options(self, stream: str) -> StreamOptions:
        return StreamOptions(auxiliary=self.auxiliary)

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        return detection_terms(retain.losses, RETAIN)
