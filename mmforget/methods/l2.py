"""L2 towards the weights before each task."""

from collections.abc import Mapping

from mmforget.methods.anchored_replay import AnchoredReplay
from mmforget.methods.base import Measurement
from mmforget.registry import METHODS


@METHODS.register_module()
class L2(AnchoredReplay):
    """Every weight matters alike: Ω = 1 (spec C, L2*).

    Args:
        strength: λ; the authors take 0.01 in detection, 0.05 to 0.1 in classification.
        **arguments: See :class:`~mmforget.methods.anchored_replay.AnchoredReplay`.
    """

    def __init__(self, strength: float = 0.01, **arguments: object) -> None:
        super().__init__(strength, **arguments)

    def importance(self, measurement: Measurement) -> Mapping[str, float]:
        return dict.fromkeys(measurement.weights, 1.0)
