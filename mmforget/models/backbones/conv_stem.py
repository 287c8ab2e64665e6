"""A compact convolutional stem in the place of a patch embedding."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmforget.registry import MODELS


@MODELS.register_module()
class ConvStem(BaseModule):
    """3×3 convolutions of stride 2 that halve the image four times.

    Each is followed by batch norm and GELU. The maps of strides 4, 8 and 16 are given.

    Args:
        channels: Channels at strides 2, 4, 8 and 16.
        in_channels: Channels of the image.
        init_cfg: MMEngine's.

    Attributes:
        out_channels: Channels of the maps.

    Raises:
        ValueError: Not four numbers of channels are given.
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 48, 96, 192),
        in_channels: int = 3,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(channels) != 4:
            raise ValueError(
                f'ConvStem got channels={tuple(channels)!r}; expected four numbers, for strides '
                '2, 4, 8 and 16.'
            )
        before = (in_channels, *channels[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.GELU(),
            )
            for inputs, outputs in zip(before, channels, strict=True)
        )
        self.out_channels = tuple(channels[1:])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of strides 4, 8 and 16 of images (B, 3, H, W)."""
        maps = []
        for layer in self.layers:
            images = layer(images)
            maps.append(images)
        return tuple(maps[1:])
