"""How many multiply-adds a low-rank layer takes in each of its two forms.

The sum form makes ``W + s B A`` and multiplies once; the two-product form multiplies by ``W`` and,
through two thin matrices, by ``s B A``. Forming the sum costs the same for one token as for ten
thousand, so it pays where the batch is large beside the layer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LowRankShape:
    """Sizes of a low-rank layer.

    Attributes:
        in_features: Columns of the weight.
        out_features: Rows of the weight.
        rank: Rank of the update.
    """

    in_features: int
    out_features: int
    rank: int


@dataclass(frozen=True)
class Gradients:
    """Which gradients the backward pass computes; none without one.

    Attributes:
        x: Of the input.
        lora_A: Of A.
        lora_B: Of B.
    """

    x: bool = True
    lora_A: bool = True
    lora_B: bool = True


def sum_multiply_adds(
    shape: LowRankShape, tokens: int, gradients: Gradients, calls: int = 1
) -> int:
    """Multiply-adds of the sum form, forward and backward.

    Args:
        shape: The layer's sizes.
        tokens: Rows of one call's input.
        gradients: What the backward pass computes.
        calls: Calls that share one sum.

    Returns:
        Of all calls together, the forming included.
    """
    full, thin_in, thin_out = _products(shape, tokens)
    per_call = full
    if gradients.x:
        per_call += full
    if gradients.lora_A:
        per_call += thin_out + thin_in
    if gradients.lora_B:
        per_call += thin_in + thin_out
    return shape.out_features * shape.rank * shape.in_features + calls * per_call


def two_product_multiply_adds(
    shape: LowRankShape, tokens: int, gradients: Gradients, calls: int = 1
) -> int:
    """Multiply-adds of the two-product form, forward and backward; see ``sum_multiply_adds``.

    ``x A^T`` is kept for the gradient of B, and ``grad B`` is shared by those of x and A.
    """
    full, thin_in, thin_out = _products(shape, tokens)
    per_call = full + thin_in + thin_out
    if gradients.x:
        per_call += full + thin_in
    if gradients.x or gradients.lora_A:
        per_call += thin_out
    if gradients.lora_A:
        per_call += thin_in
    if gradients.lora_B:
        per_call += thin_out
    return calls * per_call


def sum_pays(shape: LowRankShape, tokens: int, gradients: Gradients, calls: int = 1) -> bool:
    """Whether the sum form takes no more multiply-adds than the two-product form.

    With all gradients and one call this is so from ``in * out / (in + out)`` tokens, whatever the
    rank: 205 for a layer of 256 x 1024.
    """
    return sum_multiply_adds(shape, tokens, gradients, calls) <= two_product_multiply_adds(
        shape, tokens, gradients, calls
    )


def _products(shape: LowRankShape, tokens: int) -> tuple[int, int, int]:
    """Of tokens x in x out, tokens x in x rank and tokens x rank x out."""
    return (
        tokens * shape.in_features * shape.out_features,
        tokens * shape.in_features * shape.rank,
        tokens * shape.out_features * shape.rank,
    )
