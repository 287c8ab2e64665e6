"""Tap for dense one-stage detectors: RetinaNet, FCOS, ATSS, GFL, YOLOX, RTMDet."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream
from mmforget.taps.feature_tap import FeatureTap


@TAPS.register_module(name='SingleStageDetector')
class DenseTap(FeatureTap):
    """Reads mmdet's ``SingleStageDetector`` detectors whose ``bbox_head`` scores every place."""

    fields = FeatureTap.fields | {'logits'}

    def __init__(self, detector: nn.Module, cache: Any = None) -> None:
        head = getattr(detector, 'bbox_head', None)
        if not hasattr(head, 'loss_cls') or not hasattr(head, 'cls_out_channels'):
            raise TypeError(
                f'{type(detector).__name__} has no bbox_head with a loss_cls, as dense one-stage '
                'detectors have; mmforget cannot read it yet. Register a Tap for it with '
                f"@TAPS.register_module(name='{type(detector).__name__}')."
            )
        super().__init__(detector, cache)

    def class_heads(self) -> list[nn.Module]:
        return [self.detector.bbox_head]

    def _stream_output(
        self,
        stream: Stream,
        inputs: Tensor,
        features: Sequence[Tensor],
        data_samples: Sequence[Any],
    ) -> StreamOutput:
        given: list[Sequence[Tensor]] = []
        head = self.detector.bbox_head
        if not stream.options.losses:
            maps = head(tuple(level[stream.images] for level in features))[0]
            return StreamOutput(
                losses={},
                targets=[sample.gt_instances for sample in data_samples[stream.images]],
                logits=_by_place(maps, head.cls_out_channels),
                sigmoid=getattr(head.loss_cls, 'use_sigmoid', False),
            )
        handle = head.register_forward_hook(lambda module, inputs, maps: given.append(maps[0]))
        try:
            output = super()._stream_output(stream, inputs, features, data_samples)
        finally:
            handle.remove()
        if given:
            output.logits = _by_place(given[-1], head.cls_out_channels)
        return output


def _by_place(levels: Sequence[Tensor], classes: int) -> Tensor:
    """Score maps (B, A * C, H, W) of all levels as (B, places, C)."""
    return torch.cat(
        [level.permute(0, 2, 3, 1).reshape(len(level), -1, classes) for level in levels], dim=1
    )
