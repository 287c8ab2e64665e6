"""The decoder that gives a whole map where the encoder saw a part of the tokens (MIMDet)."""

import torch
from torch import Tensor, nn

from mmforget.models.timm_import import import_timm


class MIMDetDecoder(nn.Module):
    """Transformer blocks over the encoder's tokens and a learnt token for each missing one.

    As the decoder of a masked autoencoder (arXiv 2111.06377), which MIMDet (arXiv 2204.02964)
    keeps. Position embeddings are sines and cosines, made for the grid at hand.

    Args:
        in_channels: Channels of the encoder.
        channels: Channels of the decoder, a multiple of 32.
        depth: Number of blocks.

    Raises:
        ValueError: ``channels`` is no multiple of 32.
    """

    def __init__(self, in_channels: int, channels: int, depth: int) -> None:
        super().__init__()
        if channels % 32:
            raise ValueError(
                f'decoder_channels={channels!r}; expected a multiple of 32: every attention head '
                'takes 32 channels.'
            )
        block = import_timm().models.vision_transformer.Block
        self.embedding = nn.Linear(in_channels, channels)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.blocks = nn.ModuleList(
            block(channels, channels // 32, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(channels)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, kept: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """All tokens of the grid.

        Args:
            tokens: The encoder's, (B, n, in_channels).
            kept: Their places, (B, n); ``None`` where all are there in their order.
            grid: Rows and columns.

        Returns:
            (B, rows * columns, channels).
        """
        tokens = self.embedding(tokens)
        if kept is not None:
            everywhere = self.mask_token.expand(len(tokens), grid[0] * grid[1], -1)
            index = kept[..., None].expand(-1, -1, tokens.shape[2])
            tokens = everywhere.to(tokens.dtype).scatter(1, index, tokens)
        positions = import_timm().layers.build_sincos2d_pos_embed(
            list(grid), dim=tokens.shape[2], device=tokens.device
        )
        tokens = tokens + positions.to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)
