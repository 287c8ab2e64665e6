"""The floor: what the operations of a call cost at the machine's measured rates.

Every operation that reaches torch's kernels is counted while it runs: floating point operations by
torch's own formulas (matrix products, convolutions, attention), bytes as inputs plus outputs. An
operation cannot be faster than either allows; views cost nothing. The sum over all operations is
the floor of the call. Operators without such a formula count by their bytes alone, and what is not
torch's (scipy's matching, hashing of pixels, Python) not at all: it belongs to the distance.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mmforget.benchmarks.machine import Rates
from mmforget.benchmarks.measurement import Action

_aten = torch.ops.aten
# They say what memory looks like and move none.
_FREE = {
    _aten._unsafe_view,
    _aten.detach,
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
    _aten.lift_fresh,
}
# They read of their first input only what they give.
_PARTIAL = {_aten.index, _aten.gather, _aten.index_select, _aten.embedding}
# They write their first input and do not read it.
_WRITING = {_aten.zero_, _aten.fill_, _aten.copy_, _aten.normal_, _aten.uniform_, _aten.random_}
# They write as much of their first input as their last one holds.
_PLACING = {_aten.index_put_, _aten.index_put, _aten.scatter_, _aten.index_copy_, _aten.index_add_}


@dataclass
class Floor:
    """What a call needs at least.

    Attributes:
        flops: Floating point operations.
        bytes: Bytes read and written.
        seconds: The least time for both, operation by operation.
    """

    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0


class OperationCounter(TorchDispatchMode):
    """Counts while it is entered; the backward pass too.

    Args:
        rates: The machine's.
    """

    def __init__(self, rates: Rates) -> None:
        super().__init__()
        self.rates = rates
        self.floor = Floor()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if func.is_view or packet in _FREE:
            return out
        formula = flop_registry.get(packet)
        flops = int(formula(*args, **kwargs, out_val=out)) if formula else 0
        moved = _bytes_moved(packet, args, kwargs, out)
        self.floor.flops += flops
        self.floor.bytes += moved
        self.floor.seconds += max(flops / self.rates.flops, self.rates.move_seconds(moved))
        return out


def count(action: Action, rates: Rates) -> Floor:
    """Counts one call."""
    with OperationCounter(rates) as counter:
        action()
    return counter.floor


def _bytes_moved(packet: Any, args: tuple, kwargs: dict, out: Any) -> int:
    inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    written = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    if packet in _WRITING:
        return _size(args[0]) + sum(_size(t) for t in inputs[1:])
    if packet in _PLACING:
        return 2 * _size(inputs[-1]) + sum(_size(t) for t in inputs[1:-1])
    if not written and packet.__name__.endswith('_'):
        # Fused in-place calls return nothing: they write their first list.
        written = [t for t in tree_leaves(args[0]) if isinstance(t, Tensor)]
    most = sum(_size(t) for t in written)
    if packet in _PARTIAL:
        return most + sum(min(_size(t), most) for t in inputs)
    return most + sum(_size(t) for t in inputs)


def _size(tensor: Tensor) -> int:
    """Bytes that exist; what is expanded repeats itself."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(n for n, stride in sizes if stride)
