"""Attention within windows for timm's plain vision transformers, as in ViTDet.

Global attention costs the square of the number of tokens, and detectors see many. ViTDet (arXiv
2203.16527, section 3) lets most blocks attend within windows that do not overlap, and a few
globally. Weights and their names stay timm's.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def default_global_blocks(depth: int) -> tuple[int, ...]:
    """The last block of each quarter, as in ViTDet (section 3).

    Args:
        depth: Number of blocks.

    Returns:
        Indices of the blocks that attend globally: four, or as many as there are.
    """
    quarters = min(4, depth)
    return tuple(round(depth * quarter / quarters) - 1 for quarter in range(1, quarters + 1))


def attend_in_windows(
    blocks: Sequence[nn.Module], window: int, global_blocks: Sequence[int], prefix_tokens: int
) -> None:
    """Makes all but some blocks attend within windows.

    From then on every block must be called with ``attn_mask=grid_of(height, width)``: the tokens
    alone do not tell how they lie.

    Class and register tokens attend within every window, and the mean of what they become in all
    of them goes on. Windows that reach beyond the grid are filled up with tokens that nobody
    attends to.

    Args:
        blocks: timm's blocks, whose attention is called ``attn``.
        window: Side of a window, in tokens.
        global_blocks: Indices of the blocks that see all tokens.
        prefix_tokens: Number of class and register tokens, which come first.
    """
    for index, block in enumerate(blocks):
        attention = block.attn
        plain = type(attention).forward
        if index in global_blocks:
            attention.forward = partial(_attend_globally, plain, attention)
        else:
            attention.forward = partial(_attend_in_windows, plain, attention, window, prefix_tokens)


def grid_of(height: int, width: int, like: Tensor) -> Tensor:
    """What tells the blocks how the tokens lie: an empty tensor, (height, width, 0).

    It takes the way of the attention mask, the one argument that timm hands on to every block, so
    that nothing has to be remembered between forward and a recomputation in the backward pass.
    """
    return like.new_empty(height, width, 0)


def _attend_globally(
    plain: Callable[..., Tensor], attention: nn.Module, tokens: Tensor, **options: Any
) -> Tensor:
    options.pop('attn_mask', None)
    return plain(attention, tokens, **options)


def _attend_in_windows(
    plain: Callable[..., Tensor],
    attention: nn.Module,
    window: int,
    prefix_tokens: int,
    tokens: Tensor,
    *,
    attn_mask: Tensor,
    rope: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """What ``plain`` gives for each window.

    Args:
        plain: The attention's own forward.
        attention: The module.
        window: Side of a window.
        prefix_tokens: Number of tokens without a place.
        tokens: (B, prefix + H * W, C).
        attn_mask: What ``grid_of`` gives, (H, W, 0).
        rope: Rotary embedding by place, (H * W, D), or by head and place, (heads, H * W, D).
        **options: Further arguments of the attention.
    """
    height, width = attn_mask.shape[:2]
    prefix, placed = tokens[:, :prefix_tokens], tokens[:, prefix_tokens:]
    images, channels = placed.shape[0], placed.shape[-1]
    windows = _into_windows(placed, height, width, window)  # (B, n, window * window, C)
    number = windows.shape[1]
    inside = torch.cat([prefix[:, None].expand(-1, number, -1, -1), windows], dim=2).flatten(0, 1)
    if rope is not None:
        options['rope'] = _rope_of_windows(rope, height, width, window, images)
    options['attn_mask'] = None
    if height % window or width % window:
        options['attn_mask'] = _mask_of_filling(tokens, height, width, window, prefix_tokens)
    out = plain(attention, inside, **options).unflatten(0, (images, number))
    prefix = out[:, :, :prefix_tokens].mean(dim=1)
    placed = _out_of_windows(out[:, :, prefix_tokens:], height, width, window)
    return torch.cat([prefix, placed.reshape(images, height * width, channels)], dim=1)


def _into_windows(placed: Tensor, height: int, width: int, window: int) -> Tensor:
    """(B, H * W, C) as (B, windows, window * window, C), filled up with zeros."""
    grid = placed.unflatten(1, (height, width))
    grid = pad(grid, (0, 0, 0, -width % window, 0, -height % window))
    grid = grid.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _out_of_windows(windows: Tensor, height: int, width: int, window: int) -> Tensor:
    """The other way round: (B, H, W, C), without what filled the windows up."""
    rows, columns = math.ceil(height / window), math.ceil(width / window)
    grid = windows.unflatten(1, (rows, columns)).unflatten(3, (window, window)).transpose(2, 3)
    return grid.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def _mask_of_filling(
    tokens: Tensor, height: int, width: int, window: int, prefix_tokens: int
) -> Tensor:
    """Added to the attention: minus infinity for what fills a window up, (B * n, 1, 1, tokens)."""
    real = tokens.new_ones(1, height * width, 1)
    filling = _into_windows(real, height, width, window)[0, :, :, 0] == 0
    mask = torch.zeros_like(filling, dtype=tokens.dtype).masked_fill(filling, -torch.inf)
    return pad(mask, (prefix_tokens, 0)).repeat(len(tokens), 1)[:, None, None]


def _rope_of_windows(rope: Tensor, height: int, width: int, window: int, images: int) -> Tensor:
    """(B * windows, heads or 1, window * window, D): each token keeps its place in the image."""
    by_head = rope if rope.ndim == 3 else rope[None]
    windows = _into_windows(by_head, height, width, window)  # (heads, n, window * window, D)
    return windows.transpose(0, 1).repeat(images, 1, 1, 1)
