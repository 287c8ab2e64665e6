"""A convolutional stem and a plain vision transformer as one backbone (MIMDet)."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mmforget.models.backbones.mimdet_decoder import MIMDetDecoder
from mmforget.models.backbones.timm_vit import TimmViT
from mmforget.models.backbones.token_sampling import TokenSampling, check_ratio
from mmforget.models.backbones.windowed_attention import grid_of
from mmforget.registry import MODELS

_STRIDES = (4, 8, 16, 32)
_DEFAULT_STEM = {'type': 'mmforget.ConvStem'}


@MODELS.register_module()
class MIMDetHybrid(BaseModule):
    """The backbone of MIMDet (Fang et al., arXiv 2204.02964).

    Theirs are three ideas. A compact convolutional stem, trained from scratch, replaces the patch
    embedding of a plain vision transformer that was pre-trained by masked image modelling, and its
    finer maps feed the pyramid. The transformer is the third stage of the backbone, not the whole.
    In training it may see a random 25 to 50 % of its tokens; a small decoder, as in masked
    autoencoders, then gives a whole map again.

    Ours is the generality: any stem of MMDetection with maps of strides 4, 8 and 16, any plain
    transformer of timm, and a coarsest map of stride 32 by pooling.

    Args:
        model_name: timm's name of the transformer; its own patch size does not matter.
        stem: Config of the stem, whose last three maps have strides 4, 8 and 16.
        pretrained: As in :class:`TimmViT`; for the transformer, its patch embedding left out.
        img_size: Side or (height, width), in pixels, of the image that learnt position embeddings
            are made for.
        out_strides: Which of the maps of strides 4, 8, 16 and 32 are given.
        sample_ratio: The share of the tokens that the transformer sees in training, or (lowest,
            highest) to draw it for each batch, such as (0.25, 0.5). 1 shows all.
        decoder_depth: Blocks of the decoder; at least 1 where not all tokens are shown. 0: no
            decoder, the transformer's own output is the map of stride 16.
        decoder_channels: Channels of the decoder and of the map of stride 16.
        window_size: As in :class:`TimmViT`; not beside a ``sample_ratio`` below 1.
        global_blocks: As in :class:`TimmViT`.
        drop_path_rate: Stochastic depth of the transformer.
        timm_args: Further arguments of timm's model.
        init_cfg: MMEngine's.

    Attributes:
        out_channels: Channels of each map that is given.

    Raises:
        ImportError: timm is not installed.
        ValueError: An argument does not fit, or the stem's maps have other strides.
    """

    def __init__(
        self,
        model_name: str,
        stem: dict[str, Any] | None = None,
        pretrained: bool | str = False,
        img_size: int | Sequence[int] = 224,
        out_strides: Sequence[int] = _STRIDES,
        sample_ratio: float | Sequence[float] = 1.0,
        decoder_depth: int = 0,
        decoder_channels: int = 256,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        timm_args: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        samples = check_ratio(sample_ratio)[0] < 1
        _check(out_strides, samples, decoder_depth, window_size)
        self.stem = ROOT_MODELS.build(dict(stem or _DEFAULT_STEM))
        channels = _stem_channels(self.stem)
        sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.encoder = TimmViT(
            model_name,
            pretrained=pretrained,
            img_size=tuple(-(-side // 16) for side in sides),
            final_norm=True,
            window_size=window_size,
            global_blocks=global_blocks,
            drop_path_rate=drop_path_rate,
            # The stem's map is the image, and each of its places a patch.
            timm_args={**(timm_args or {}), 'patch_size': 1, 'in_chans': channels[-1]},
        )
        if not self.encoder.is_plain:
            raise ValueError(
                f'MIMDetHybrid got model_name={model_name!r}; expected a plain vision transformer '
                '(vit_*, deit3_*, eva02_*).'
            )
        vit = self.encoder.vit
        width = self.encoder.out_channels[-1]
        # Some transformers norm behind their pooling alone.
        has_norm = not isinstance(vit.norm, nn.Identity)
        self.norm = nn.Identity() if has_norm else nn.LayerNorm(width)
        self.sampling = None
        if samples:
            with_indices = getattr(vit, 'rope', None) is not None or vit.patch_drop is None
            self.sampling = TokenSampling(sample_ratio, vit.num_prefix_tokens, with_indices)
            vit.patch_drop = self.sampling
        self.decoder = None
        if decoder_depth:
            self.decoder = MIMDetDecoder(width, decoder_channels, decoder_depth)
            width = decoder_channels
        self.out_strides = tuple(out_strides)
        by_stride = dict(zip(_STRIDES, (*channels[:2], width, width), strict=True))
        self.out_channels = tuple(by_stride[stride] for stride in self.out_strides)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps.

        Args:
            images: (B, 3, H, W).

        Returns:
            One map for each of ``out_strides``, (B, C, H / stride, W / stride), rounded up.
        """
        finest, finer, coarse = self.stem(images)[-3:]
        rows, columns = coarse.shape[-2:]
        options = {'attn_mask': grid_of(rows, columns, coarse)} if self.encoder.window_size else {}
        (tokens,) = self.encoder.vit.forward_intermediates(
            coarse,
            indices=list(self.encoder.out_indices),
            norm=True,
            stop_early=True,
            output_fmt='NLC',
            intermediates_only=True,
            **options,
        )
        tokens = self.norm(tokens)
        if self.decoder is not None:
            kept = None if self.sampling is None else self.sampling.take()
            tokens = self.decoder(tokens, kept, (rows, columns))
        transformed = tokens.transpose(1, 2).unflatten(2, (rows, columns)).contiguous()
        maps = {4: finest, 8: finer, 16: transformed}
        if 32 in self.out_strides:
            # Odd sides are rounded up, as a convolution of stride 2 rounds them.
            maps[32] = max_pool2d(transformed, 2, ceil_mode=True)
        return tuple(maps[stride] for stride in self.out_strides)


def _check(out_strides: Sequence[int], samples: bool, decoder_depth: int, window_size: int) -> None:
    if not out_strides or list(out_strides) != sorted(set(out_strides) & set(_STRIDES)):
        raise ValueError(
            f'MIMDetHybrid got out_strides={tuple(out_strides)!r}; expected some of {_STRIDES}, '
            'in this order.'
        )
    if samples and decoder_depth < 1:
        raise ValueError(
            f'MIMDetHybrid got decoder_depth={decoder_depth!r} with a sample_ratio below 1: '
            'something must fill the places of the tokens that are not shown. Give at least 1, '
            'or sample_ratio=1.'
        )
    if samples and window_size:
        raise ValueError(
            f'MIMDetHybrid got window_size={window_size} with a sample_ratio below 1: a random '
            'part of the tokens has no windows. Give one of the two.'
        )


@torch.no_grad()
def _stem_channels(stem: nn.Module) -> tuple[int, int, int]:
    """Channels of the stem's maps of strides 4, 8 and 16.

    Raises:
        ValueError: There are no such maps.
    """
    training = stem.training
    stem.eval()  # Some of MMDetection's backbones return nothing here.
    maps = stem(torch.zeros(1, 3, 64, 64))[-3:]
    stem.train(training)
    sides = [tuple(m.shape[-2:]) for m in maps]
    if sides != [(16, 16), (8, 8), (4, 4)]:
        raise ValueError(
            f'The stem {type(stem).__name__} of MIMDetHybrid gives maps of {sides} as its last '
            'three for an image of 64 x 64; expected strides 4, 8 and 16: set its out_indices.'
        )
    return tuple(m.shape[1] for m in maps)
