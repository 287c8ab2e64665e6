"""The pyramid of ViTDet: several resolutions out of one map."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmforget.models.timm_import import import_timm
from mmforget.registry import MODELS

_SCALES = (4.0, 2.0, 1.0, 0.5)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Builds every level from the last map of a plain backbone (ViTDet, arXiv 2203.16527, 3).

    A map of stride 16 becomes maps of strides 4, 8, 16 and 32: by two transposed convolutions, by
    one, as it is, and by pooling. A 1×1 and a 3×3 convolution, each with a layer norm, follow on
    each level. Further levels are pooled from the last.

    Args:
        in_channels: Channels of the backbone's last map.
        out_channels: Channels of every level.
        num_outs: Number of levels, at least as many as ``scales``.
        scales: Resolution of each level over that of the map: 4, 2, 1 or 0.5.
        init_cfg: MMEngine's.

    Raises:
        ImportError: timm is not installed.
        ValueError: A scale is none of these, or there are more scales than levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        num_outs: int = 5,
        scales: Sequence[float] = _SCALES,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        unknown = [scale for scale in scales if scale not in _SCALES]
        if unknown or not 0 < len(scales) <= num_outs:
            raise ValueError(
                f'SimpleFeaturePyramid got scales={tuple(scales)!r} and num_outs={num_outs!r}; '
                f'expected some of {_SCALES}, and at least as many levels.'
            )
        norm = import_timm().layers.LayerNorm2d
        self.levels = nn.ModuleList(
            nn.Sequential(
                *_to_scale(scale, in_channels, norm),
                nn.Conv2d(_channels_at(scale, in_channels), out_channels, 1, bias=False),
                norm(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                norm(out_channels),
            )
            for scale in scales
        )
        self.num_outs = num_outs
        self.pool = nn.MaxPool2d(1, stride=2)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The levels, finest first.

        Args:
            maps: The backbone's maps; the last one, (B, in_channels, H, W), is taken.

        Returns:
            For each level (B, out_channels, H * scale, W * scale).
        """
        # timm's norm leaves the channels last in memory, which MMCV's RoIAlign reads as if first.
        outputs = [level(maps[-1]).contiguous() for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(self.pool(outputs[-1]))
        return tuple(outputs)


def _to_scale(scale: float, channels: int, norm: type[nn.Module]) -> list[nn.Module]:
    """The layers that bring a map to another resolution."""
    if scale == 0.5:
        return [nn.MaxPool2d(2)]
    if scale == 1:
        return []
    first = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
    if scale == 2:
        return [first]
    second = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
    return [first, norm(channels // 2), nn.GELU(), second]


def _channels_at(scale: float, channels: int) -> int:
    return int(channels / scale) if scale > 1 else channels
