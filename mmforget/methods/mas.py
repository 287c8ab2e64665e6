"""Memory aware synapses."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmforget.methods.anchored_replay import AnchoredReplay
from mmforget.methods.base import RETAIN, Measurement
from mmforget.registry import METHODS


@METHODS.register_module()
class MAS(AnchoredReplay):
    """Ω is how far a weight moves the logits: mean of |∂ mean(z²)/∂θ| (arXiv 1711.09601; spec C).

    Args:
        strength: λ; the authors take 0.1 in detection, 5 to 0.002 in classification.
        batches: Batches of the retain set that Ω is measured on.
        **arguments: See :class:`~mmforget.methods.anchored_replay.AnchoredReplay`.

    Raises:
        ValueError: ``batches`` is not positive.
    """

    needs = frozenset({'losses', 'logits'})

    def __init__(self, strength: float = 0.1, batches: int = 20, **arguments: object) -> None:
        super().__init__(strength, **arguments)
        if batches < 1:
            raise ValueError(f'MAS got batches={batches!r}; expected a positive whole number.')
        self.measured_batches = batches

    def importance(self, measurement: Measurement) -> Mapping[str, Tensor]:
        names, weights = zip(*measurement.weights.items(), strict=True)
        total = [torch.zeros_like(weight) for weight in weights]
        batches = 0
        for (output,) in measurement.outputs(RETAIN):
            size = output.logits.square().mean()
            for own, gradient in zip(
                total, torch.autograd.grad(size, weights, allow_unused=True), strict=True
            ):
                if gradient is not None:
                    own += gradient.abs()
            batches += 1
        return dict(zip(names, (own / max(batches, 1) for own in total), strict=True))
