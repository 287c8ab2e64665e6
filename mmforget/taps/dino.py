"""Tap for DINO."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmdet.models.dense_heads import DETRHead
from mmdet.models.detectors import DINO
from torch import Tensor, nn

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream
from mmforget.taps.detr import DeformableDETRTap
from mmforget.taps.replaced import replaced
from mmforget.taps.trunk_cache import TrunkCache


@TAPS.register_module(name='DINO')
class DINOTap(DeformableDETRTap):
    """DINO without what only its training from scratch needs.

    Denoising queries are made of the labels of the batch, so two streams could not share a forward,
    and a forgotten class would be named to the decoder. The encoder's proposals are scored by class
    and choose queries, they detect nothing. Neither has a loss here, only the decoder has.
    """

    known_forward = DINO.forward_transformer

    def __init__(self, detector: nn.Module, cache: TrunkCache | None = None) -> None:
        super().__init__(detector, cache)
        if type(detector).pre_decoder is not DINO.pre_decoder:
            raise TypeError(
                f'{type(detector).__name__} has a forward of its own (it chooses its queries in '
                'another way than DINO), which mmforget cannot read yet.'
            )

    def look_ahead(self, inputs: Tensor, data_samples: Sequence[Any]) -> list[bytes]:
        with self._without_denoising():
            return super().look_ahead(inputs, data_samples)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        with self._without_denoising():
            return super().forward(inputs, data_samples, streams)

    @contextmanager
    def _without_denoising(self) -> Iterator[None]:
        """While open, queries are those of an evaluation."""
        detector = self.detector

        def pre_decoder(**of_encoder: Any) -> tuple[dict, dict]:
            with replaced(detector, 'training', False):
                return type(detector).pre_decoder(detector, **of_encoder)

        with replaced(detector, 'pre_decoder', pre_decoder):
            yield

    def _decoder_losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        # DINO's own splits denoising queries off first, and cannot do without them.
        return DETRHead.loss_by_feat(self.detector.bbox_head, logits, boxes, targets, metas)
