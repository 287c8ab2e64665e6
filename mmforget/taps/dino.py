"""Tap for DINO."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.detectors import DINO
from torch import Tensor

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream
from mmforget.taps.detr import DeformableDETRTap
from mmforget.taps.replaced import replaced


@TAPS.register_module(name='DINO')
class DINOTap(DeformableDETRTap):
    """DINO without what only its training from scratch needs.

    Denoising queries are made of the labels of the batch, so two streams could not share a forward,
    and a forgotten class would be named to the decoder. The encoder's proposals are scored by class
    and choose queries, they detect nothing. Neither has a loss here, only the decoder has.
    """

    known_forward = DINO.forward_transformer

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        detector = self.detector

        def pre_decoder(**of_encoder: Any) -> tuple[dict, dict]:
            with replaced(detector, 'training', False):
                return type(detector).pre_decoder(detector, **of_encoder)

        with replaced(detector, 'pre_decoder', pre_decoder):
            return super().forward(inputs, data_samples, streams)

    def _decoder_losses(
        self, logits: Tensor, boxes: Tensor, targets: list[Any], metas: list[dict]
    ) -> dict[str, Tensor]:
        head = self.detector.bbox_head
        return head.loss_by_feat(logits, boxes, None, None, targets, metas, dn_meta=None)
