"""Groups of adapters: their norms, the penalty, the threshold and exact zeros.

The method selects whole transformer blocks: a block whose group is driven to zero is left as it was
(arXiv 2403.11530, section 4.2, "group sparsity selection").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .foreach import frobenius_norms, largest, scale_, update_norms
from .low_rank import LowRankLayer
from .structure import block_of, block_of_layer, plain_heads, stage_of, transformer_blocks

#: Added under the root of the paper's norm. The authors' code has none: the gradient is then
#: undefined at zero.
EPS = 1e-12

NORMS = ('ab', 'b', 'ba')
GROUPINGS = ('block', 'stage', 'adapter', 'matrix')


@dataclass(eq=False)
class AdapterGroup:
    """Some matrices of some adapters that live or die together.

    Attributes:
        name: Name of the group, e.g. ``encoder.layers.0``.
        members: (adapter name, layer, matrices), the matrices being ``'A'``, ``'B'`` or ``'AB'``.
    """

    name: str
    members: list[tuple[str, LowRankLayer, str]]

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
        return group_norms([self], kind)[0]

    @torch.no_grad()
    def is_zero(self) -> bool:
        """Whether the matrices of :meth:`effect` are exactly zero: the group does nothing."""
        return not bool(largest([self.effect()]))


def group_norms(groups: Sequence[AdapterGroup], kind: str = 'ab') -> Tensor:
    """Sizes of all groups at once; see :meth:`AdapterGroup.norm`.

    Args:
        groups: The groups, at least one.
        kind: ``'ab'``, ``'b'`` or ``'ba'``.

    Returns:
        (groups,), with gradient.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == 'ab':
        return frobenius_norms([group.parameters() for group in groups], EPS)
    if kind == 'b':
        return frobenius_norms([group.effect() for group in groups])
    if kind == 'ba':
        return update_norms(
            [
                [(layer.lora_A, layer.lora_B, layer.scaling) for _, layer, _ in group.members]
                for group in groups
            ]
        )
    raise ValueError(
        f"unknown norm kind={kind!r}: expected one of {NORMS} ('ab' is the paper's norm, 'b' "
        "and 'ba' measure the effect)"
    )


def make_groups(
    adapters: Mapping[str, LowRankLayer], by: str = 'block', model: nn.Module | None = None
) -> dict[str, AdapterGroup]:
    """Sort adapters into groups.

    Args:
        adapters: Path -> adapter, as :func:`~mmforget.adapters.injection.inject` returns them.
        by: ``'block'``: one group per transformer block, the paper's choice, per residual block of
            a backbone, and per list of layers in a head;
            ``'stage'``: one per stage of a backbone and per list of layers elsewhere;
            ``'adapter'``: one per layer; ``'matrix'``: one per matrix, named ``<path>.lora_A`` and
            ``<path>.lora_B``.
        model: The model that the layers belong to, which tells its blocks and stages; without it
            blocks are told by the paths alone, and there are no stages.

    Returns:
        Group name -> group, in the order of ``adapters``.

    Raises:
        ValueError: ``by`` is unknown, or ``'stage'`` without a model.
    """
    if by not in GROUPINGS:
        raise ValueError(f'unknown grouping by={by!r}: expected one of {GROUPINGS}')
    if by == 'stage' and model is None:
        raise ValueError("grouping by='stage' needs the model, whose modules tell the stages")
    groups: dict[str, AdapterGroup] = {}
    blocks, heads = [], set()
    if by == 'block' and model is not None:
        blocks, heads = list(transformer_blocks(model)), plain_heads(model)
    for name, layer in adapters.items():
        if by == 'matrix':
            for matrix in 'AB':
                key = f'{name}.lora_{matrix}'
                groups[key] = AdapterGroup(key, [(name, layer, matrix)])
            continue
        if by == 'block':
            key = block_of_layer(name, blocks)
            if key is None:
                key = stage_of(model, name) if name.split('.')[0] in heads else block_of(name)
        else:
            key = name if by == 'adapter' else stage_of(model, name)
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
    return group_norms(list(groups.values()), kind).sum()


@torch.no_grad()
def proximal_step(groups: Sequence[AdapterGroup], thresholds: Tensor | float) -> Tensor:
    """Soft-threshold the effect of groups: B <- B * max(0, 1 - threshold / ||B_g||), in place.

    This is the proximal map of ``threshold * ||B_g||`` (Yuan and Lin 2006, the group lasso). Unlike
    the gradient of a penalty it gives exact zeros, namely whenever ``threshold >= ||B_g||``. A
    group that holds only A is thresholded on A.

    Nothing waits for the device, so nothing is looked at either: a norm or a threshold that is NaN
    turns its whole group to NaN, and the next check of losses or weights finds it.

    Args:
        groups: The groups, at least one; their matrices are changed in place.
        thresholds: By how much each norm shrinks, in units of the norm; not negative. (groups,) on
            the device of the matrices, or one number for all.

    Returns:
        The new norms, (groups,).

    Raises:
        ValueError: ``thresholds`` is a number that is negative or not a number.
    """
    if not isinstance(thresholds, Tensor) and not thresholds >= 0:
        raise ValueError(f'thresholds={thresholds!r}: expected a number that is not negative')
    norms = group_norms(groups, 'b')
    # In this order NaN is no case of "below the threshold", which would hide it behind a zero.
    factors = torch.where(norms <= thresholds, 0.0, 1.0 - thresholds / norms).to(norms.dtype)
    scale_([group.effect() for group in groups], factors)
    return norms * factors


@torch.no_grad()
def zero_groups(groups: Mapping[str, AdapterGroup]) -> list[str]:
    """Names of the groups without effect, see :meth:`AdapterGroup.is_zero`; waits once for all."""
    if not groups:
        return []
    entries = largest([group.effect() for group in groups.values()]).tolist()
    return [name for name, entry in zip(groups, entries, strict=True) if entry == 0]


@torch.no_grad()
def zero_(group: AdapterGroup) -> None:
    """Set the effect of a group to exact zeros, in place."""
    for matrix in group.effect():
        matrix.zero_()
