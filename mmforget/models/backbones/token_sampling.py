"""A random part of the tokens, in the place of timm's patch dropout."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TokenSampling(nn.Module):
    """In training, lets a random part of the tokens through; which, is kept until it is taken.

    Every image of a batch keeps the same number of tokens.

    Args:
        ratio: The share that is kept, one number, or (lowest, highest) to draw one for each batch.
        prefix_tokens: Tokens that come first and are always kept.
        with_indices: Returns the indices, too, as timm's blocks with rotary embeddings want them.
    """

    def __init__(
        self, ratio: float | Sequence[float], prefix_tokens: int, with_indices: bool
    ) -> None:
        super().__init__()
        self.ratio = check_ratio(ratio)
        self.prefix_tokens = prefix_tokens
        self.with_indices = with_indices
        self._kept: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """(B, prefix + N, C) to (B, prefix + n, C)."""
        self._kept = None
        if self.training and self.ratio[0] < 1:
            placed = tokens[:, self.prefix_tokens :]
            number = max(1, round(placed.shape[1] * self._share()))
            order = torch.rand(placed.shape[:2], device=tokens.device).argsort(dim=1)
            self._kept = order[:, :number].sort(dim=1).values
            index = self._kept[..., None].expand(-1, -1, placed.shape[2])
            tokens = torch.cat([tokens[:, : self.prefix_tokens], placed.gather(1, index)], dim=1)
        return (tokens, self._kept) if self.with_indices else tokens

    def take(self) -> Tensor | None:
        """Indices (B, n) of what the last forward kept, ``None`` for everything; forgets them."""
        kept, self._kept = self._kept, None
        return kept

    def _share(self) -> float:
        lowest, highest = self.ratio
        return lowest + (highest - lowest) * torch.rand(()).item()


def check_ratio(ratio: float | Sequence[float]) -> tuple[float, float]:
    """(lowest, highest) share of the tokens.

    Raises:
        ValueError: It is not in (0, 1], or the lowest is more than the highest.
    """
    pair = tuple(ratio) if isinstance(ratio, (list, tuple)) else (ratio, ratio)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= 1:
        raise ValueError(
            f'sample_ratio={ratio!r}; expected a share of the tokens in (0, 1], or a pair '
            '(lowest, highest) of such.'
        )
    return pair
