"""Elastic weight consolidation."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmforget.methods.anchored_replay import AnchoredReplay
from mmforget.methods.base import RETAIN, Measurement
from mmforget.registry import METHODS


@METHODS.register_module()
class EWC(AnchoredReplay):
    """Ω is the diagonal of the Fisher information on the retain set (arXiv 1612.00796; spec C).

    Args:
        strength: λ; the authors take 10 in detection, 3 on ImageNet.
        batches: Batches of the retain set that Ω is measured on.
        fisher: ``'image'``: the mean of each image's squared gradient; ``'batch'``: the mean of the
            batches' squared gradients times the batch size, as in the authors' code.
        **arguments: See :class:`~mmforget.methods.anchored_replay.AnchoredReplay`.

    Raises:
        ValueError: ``fisher`` is unknown, or ``batches`` is not positive.
    """

    def __init__(
        self, strength: float = 10.0, batches: int = 20, fisher: str = 'image', **arguments: object
    ) -> None:
        super().__init__(strength, **arguments)
        if fisher not in ('image', 'batch') or batches < 1:
            raise ValueError(
                f"EWC got fisher={fisher!r}, batches={batches!r}; expected 'image' or 'batch', and "
                'a positive whole number.'
            )
        self.fisher = fisher
        self.measured_batches = batches

    def importance(self, measurement: Measurement) -> Mapping[str, Tensor]:
        names, weights = zip(*measurement.weights.items(), strict=True)
        total = [torch.zeros_like(weight) for weight in weights]
        count = 0
        for outputs in measurement.outputs(RETAIN, each=self.fisher == 'image'):
            for place, output in enumerate(outputs, 1):
                loss = sum(output.losses.values())
                gradients = torch.autograd.grad(
                    loss, weights, retain_graph=place < len(outputs), allow_unused=True
                )
                images = len(output.targets)
                for own, gradient in zip(total, gradients, strict=True):
                    if gradient is not None:
                        # Of a batch: its size squared over its size, as a sum over images.
                        own += images * gradient.square()
                count += images if self.fisher == 'image' else 1
        return dict(zip(names, (own / max(count, 1) for own in total), strict=True))
