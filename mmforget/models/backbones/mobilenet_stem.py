"""The first stages of MobileNetV2, whose ImageNet weights they may start from, as a stem."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.backbones import MobileNetV2

from mmforget.registry import MODELS


@MODELS.register_module()
class MobileNetV2Stem(MobileNetV2):
    """mmdet's MobileNetV2 without the layers above its last output.

    Args:
        out_indices: Layers whose output is given; by default those of strides 4, 8 and 16 (24, 32
            and 96 channels).
        **options: mmdet's.
    """

    def __init__(self, out_indices: Sequence[int] = (1, 2, 4), **options: Any) -> None:
        super().__init__(out_indices=out_indices, **options)
        last = max(out_indices)
        for name in self.layers[last + 1 :]:
            delattr(self, name)
        self.layers = self.layers[: last + 1]
