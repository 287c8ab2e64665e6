"""Tap for MaskFormer and Mask2Former."""

import re
from collections.abc import Sequence

from torch import Tensor, nn

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream
from mmforget.taps.feature_tap import FeatureTap

_OF_OTHER_LAYERS = re.compile(r'd\d+\.')


@TAPS.register_module(name='MaskFormer')
class MaskFormerTap(FeatureTap):
    """Reads mmdet's ``MaskFormer`` and ``Mask2Former``: queries with a mask and a softmax each."""

    mean_over_matched = True
    one_to_one = True

    def class_heads(self) -> list[nn.Module]:
        return [self.detector.panoptic_head]

    def _stream_output(
        self,
        stream: Stream,
        inputs: Tensor,
        features: Sequence[Tensor],
        data_samples: Sequence,
    ) -> StreamOutput:
        output = super()._stream_output(stream, inputs, features, data_samples)
        if not stream.options.auxiliary:
            output.losses = {
                name: loss
                for name, loss in output.losses.items()
                if not _OF_OTHER_LAYERS.match(name)
            }
        return output
