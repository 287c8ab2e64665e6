"""Groups of adapters: their norms, the penalty, the threshold and exact zeros.

The method selects whole transformer blocks: a block whose group is driven to zero is left as it was
(arXiv 2403.11530, section 4.2, "group sparsity selection").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .injection import block_of
from .lora import LoRALinear

#: Added under the root of the paper's norm. The authors' code has none: the gradient is then
#: undefined at zero.
EPS = 1e-12

NORMS = ('ab', 'b', 'ba')
GROUPINGS = ('block', 'adapter', 'matrix')


@dataclass(eq=False)
class AdapterGroup:
    """Some matrices of some adapters that live or die together.

    Attributes:
        name: Name of the group, e.g. ``encoder.layers.0``.
        members: (adapter name, layer, matrices), the matrices being ``'A'``, ``'B'`` or ``'AB'``.
    """

    name: str
    members: list[tuple[str, LoRALinear, str]]

    def __post_init__(self) -> None:
        for adapter, _, matrices in self.members:
            if matrices not in ('A', 'B', 'AB'):
                raise ValueError(
                    f"group '{self.name}', adapter '{adapter}': matrices={matrices!r}, expected "
                    "'A', 'B' or 'AB'"
                )

    def parameters(self) -> list[nn.Parameter]:
        """The matrices of the group: for each member A (rank, in) before B (out, rank)."""
        found = []
        for _, layer, matrices in self.members:
            if 'A' in matrices:
                found.append(layer.lora_A)
            if 'B' in matrices:
                found.append(layer.lora_B)
        return found

    def effect(self) -> list[nn.Parameter]:
        """The matrices whose zero means "no effect": B, or A where the group has no B."""
        return [
            layer.lora_B if 'B' in matrices else layer.lora_A for _, layer, matrices in self.members
        ]

    def norm(self, kind: str = 'ab') -> Tensor:
        """Size of the group, a scalar tensor with gradient.

        Args:
            kind: ``'ab'``: sqrt(sum ||A||^2 + ||B||^2 + eps) over the group's matrices, the paper's
                measure (arXiv 2403.11530, section 4.2). It starts at the norm of the random A and
                cannot tell a group without effect. ``'b'``: Frobenius norm of the matrices of
                :meth:`effect`; 0 at the start. ``'ba'``: Frobenius norm of the updates s B A of the
                members; 0 at the start. It is taken from rank x rank matrices, ||BA||^2 =
                tr((B^T B)(A A^T)). The last two are exactly 0, with gradient 0, for a group without
                effect.

        Returns:
            Scalar.

        Raises:
            ValueError: ``kind`` is unknown.
        """
        if kind == 'ab':
            return (_sum_of_squares(self.parameters()) + EPS).sqrt()
        if kind == 'b':
            return _root(_sum_of_squares(self.effect()))
        if kind == 'ba':
            squares = []
            for _, layer, _ in self.members:
                gram_A = layer.lora_A @ layer.lora_A.t()
                gram_B = layer.lora_B.t() @ layer.lora_B
                squares.append(layer.scaling**2 * (gram_A * gram_B).sum())
            return _root(torch.stack(squares).sum())
        raise ValueError(
            f"unknown norm kind={kind!r}: expected one of {NORMS} ('ab' is the paper's norm, 'b' "
            "and 'ba' measure the effect)"
        )

    @torch.no_grad()
    def is_zero(self) -> bool:
        """Whether the matrices of :meth:`effect` are exactly zero: the group does nothing."""
        return not any(bool(matrix.any()) for matrix in self.effect())


def _sum_of_squares(matrices: Iterable[Tensor]) -> Tensor:
    return torch.stack([matrix.square().sum() for matrix in matrices]).sum()


def _root(square: Tensor) -> Tensor:
    """Square root whose value and gradient at zero (or just below, by rounding) are zero."""
    zero = square <= 0  # NaN is not, and stays NaN
    # The inner where keeps the infinite slope at zero out of the gradient, where it would become
    # NaN.
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def make_groups(adapters: Mapping[str, LoRALinear], by: str = 'block') -> dict[str, AdapterGroup]:
    """Sort adapters into groups.

    Args:
        adapters: Path -> adapter, as :func:`~mmforget.adapters.injection.inject` returns them.
        by: ``'block'``: one group per transformer block, the paper's choice; ``'adapter'``: one per
            layer; ``'matrix'``: one per matrix, named ``<path>.lora_A`` and ``<path>.lora_B``.

    Returns:
        Group name -> group, in the order of ``adapters``.

    Raises:
        ValueError: ``by`` is unknown.
    """
    if by not in GROUPINGS:
        raise ValueError(f'unknown grouping by={by!r}: expected one of {GROUPINGS}')
    groups: dict[str, AdapterGroup] = {}
    for name, layer in adapters.items():
        if by == 'matrix':
            for matrix in 'AB':
                key = f'{name}.lora_{matrix}'
                groups[key] = AdapterGroup(key, [(name, layer, matrix)])
        else:
            key = name if by == 'adapter' else block_of(name)
            groups.setdefault(key, AdapterGroup(key, [])).members.append((name, layer, 'AB'))
    return groups


def group_penalty(groups: Mapping[str, AdapterGroup], kind: str = 'ab') -> Tensor:
    """Sum of the groups' norms, without weights for group size (arXiv 2403.11530, section 4.2).

    Args:
        groups: The groups; none give 0.
        kind: See :meth:`AdapterGroup.norm`.

    Returns:
        A scalar with gradient, to be multiplied by the sparsity coefficient.
    """
    if kind not in NORMS:
        raise ValueError(f'unknown norm kind={kind!r}: expected one of {NORMS}')
    if not groups:
        return torch.zeros(())
    return torch.stack([group.norm(kind) for group in groups.values()]).sum()


@torch.no_grad()
def proximal_step(group: AdapterGroup, threshold: float) -> float:
    """Soft-threshold the effect of a group: B <- B * max(0, 1 - threshold / ||B_g||), in place.

    This is the proximal map of ``threshold * ||B_g||`` (Yuan and Lin 2006, the group lasso). Unlike
    the gradient of a penalty it gives exact zeros, namely whenever ``threshold >= ||B_g||``. A
    group that holds only A is thresholded on A.

    Args:
        group: The group; its matrices are changed in place.
        threshold: By how much the norm shrinks, in units of the norm; not negative.

    Returns:
        The new norm.

    Raises:
        ValueError: ``threshold`` is negative or not a number.
        FloatingPointError: The group holds NaN or infinity.
    """
    if not threshold >= 0:
        raise ValueError(f'threshold={threshold!r}: expected a number that is not negative')
    norm = float(group.norm('b'))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"group '{group.name}' has norm {norm}: its matrices hold NaN or infinity. Lower the "
            'learning rate, or check the losses.'
        )
    if norm <= threshold:
        zero_(group)
        return 0.0
    if threshold > 0:
        factor = 1.0 - threshold / norm
        for matrix in group.effect():
            matrix.mul_(factor)
    return norm - threshold


@torch.no_grad()
def zero_(group: AdapterGroup) -> None:
    """Set the effect of a group to exact zeros, in place."""
    for matrix in group.effect():
        matrix.zero_()
