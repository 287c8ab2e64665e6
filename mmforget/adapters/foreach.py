"""Norms and scaling of sets of matrices: fused calls for all sets, without waiting for a device.

A set is what a group of adapters holds. A loop over its matrices would start a kernel for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def frobenius_norms(sets: Sequence[Sequence[Tensor]], eps: float = 0.0) -> Tensor:
    """``sqrt(sum of squares + eps)`` of each set of matrices.

    Args:
        sets: Matrices of any shapes; one set or more, one matrix or more in each.
        eps: Added under the root. Where it is 0, the gradient at zero is 0.

    Returns:
        (sets,), with gradient to the matrices.
    """
    sizes = tuple(len(matrices) for matrices in sets)
    return _FrobeniusNorms.apply(sizes, eps, *chain.from_iterable(sets))


def update_norms(sets: Sequence[Sequence[tuple[Tensor, Tensor, float]]]) -> Tensor:
    """Frobenius norm of the updates ``s B A`` of each set of adapters.

    It is taken from rank x rank matrices, ``||BA||^2 = tr((B^T B)(A A^T))``, in one batch for all
    adapters of a shape.

    Args:
        sets: (A (rank, in), B (out, rank), s) for each adapter; one set or more, one adapter or
            more in each.

    Returns:
        (sets,), with gradient to A and B; it is 0 where the norm is.
    """
    members = list(chain.from_iterable(sets))
    alike: dict[Any, list[int]] = {}
    for index, (lora_A, lora_B, scaling) in enumerate(members):
        key = (lora_A.shape, lora_B.shape, lora_A.dtype, lora_B.dtype, scaling)
        alike.setdefault(key, []).append(index)
    squares: dict[int, Tensor] = {}
    # A norm of small matrices must not be lowered by a surrounding autocast.
    with torch.autocast(members[0][0].device.type, enabled=False):
        for indices in alike.values():
            lora_A = torch.stack([members[index][0] for index in indices])
            lora_B = torch.stack([members[index][1] for index in indices])
            products = (lora_A @ lora_A.mT) * (lora_B.mT @ lora_B)
            scaling = members[indices[0]][2]
            of_shape = scaling**2 * products.sum(dim=(1, 2))
            squares.update(zip(indices, of_shape.unbind(), strict=True))
    in_order = [squares[index] for index in range(len(members))]
    return _root(_rows(in_order, [len(adapters) for adapters in sets]).sum(dim=1))


@torch.no_grad()
def largest(sets: Sequence[Sequence[Tensor]]) -> Tensor:
    """Largest absolute entry of each set of matrices, NaN where there is one.

    Unlike a norm of squares it is 0 for zeros alone.

    Returns:
        (sets,).
    """
    norms = torch._foreach_norm(list(chain.from_iterable(sets)), torch.inf)
    return _rows(norms, [len(matrices) for matrices in sets]).amax(dim=1)


@torch.no_grad()
def scale_(sets: Sequence[Sequence[Tensor]], factors: Tensor) -> None:
    """Multiplies each set of matrices by its factor, in place.

    Args:
        sets: The matrices.
        factors: (sets,), on the matrices' device.
    """
    matrices = list(chain.from_iterable(sets))
    torch._foreach_mul_(matrices, _spread(factors, [len(m) for m in sets], matrices))


class _FrobeniusNorms(torch.autograd.Function):
    """Autograd's own backward pass would start several kernels for each matrix."""

    @staticmethod
    def forward(ctx: Any, sizes: tuple[int, ...], eps: float, *matrices: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(_rows(torch._foreach_norm(matrices), sizes), dim=1)
        if eps:
            norms = (norms.square() + eps).sqrt()
        ctx.sizes = sizes
        ctx.save_for_backward(norms, *matrices)
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        norms, *matrices = ctx.saved_tensors
        factors = torch.where(norms == 0, 0.0, grad / norms)  # NaN is not 0, and stays NaN
        return None, None, *torch._foreach_mul(matrices, _spread(factors, ctx.sizes, matrices))


def _rows(values: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The values of each set as a row, zeros behind: (sets, most values in a set).

    Args:
        values: Scalars, set after set.
        sizes: Values in each set.
    """
    longest = max(sizes)
    if len(values) < longest * len(sizes):
        zero = torch.zeros_like(values[0])
        ends = list(_ends(sizes))
        values = [
            value
            for end, size in zip(ends, sizes, strict=True)
            for value in (*values[end - size : end], *[zero] * (longest - size))
        ]
    return torch.stack(tuple(values)).view(len(sizes), longest)


def _spread(factors: Tensor, sizes: Sequence[int], matrices: Sequence[Tensor]) -> list[Tensor]:
    """Each set's factor at every entry of its matrices, in their shapes.

    Fused calls take a factor for each tensor as a Python number, which would have to be waited
    for, or as a tensor of the same shape.
    """
    entries = [matrix.numel() for matrix in matrices]
    ends = _ends(sizes)
    of_set = [sum(entries[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    flat = torch.cat(
        [factor.expand(number) for factor, number in zip(factors.unbind(), of_set, strict=True)]
    )
    pieces = flat.split(entries)
    return [
        piece.view(matrix.shape).to(matrix.dtype)
        for piece, matrix in zip(pieces, matrices, strict=True)
    ]


def _ends(sizes: Sequence[int]) -> list[int]:
    ends, end = [], 0
    for size in sizes:
        end += size
        ends.append(end)
    return ends


def _root(squares: Tensor) -> Tensor:
    """Square root whose value and gradient at zero (or just below, by rounding) are zero."""
    zero = squares <= 0  # NaN is not, and stays NaN
    # The inner where keeps the infinite slope at zero out of the gradient, where it would become
    # NaN.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
