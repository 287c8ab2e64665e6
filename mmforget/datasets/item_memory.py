"""Remembers what the pipeline made of an image, so that it is read and decoded once."""

import copy
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask.structures import BaseInstanceMasks
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils._pytree import tree_leaves

# Bytes, versions of the pixels, and the item itself.
_Kept = tuple[int, list[int], dict[str, Any]]


class ItemMemory:
    """Items of streams, bounded in bytes; the one that was not asked for longest leaves first.

    Pays where the same item comes again: with ``augmentations`` in the sampling.

    Args:
        max_bytes: Upper bound of the pixels, boxes, labels and masks that are kept.

    Attributes:
        bytes: Kept now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._items: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable) -> dict[str, Any] | None:
        """A copy of an item, its pixels shared: annotations are changed on their way.

        ``None`` where it is not kept, or where its pixels were written to since.
        """
        if key not in self._items:
            return None
        size, versions, item = self._items[key]
        if versions != _versions(item):
            self.bytes -= size
            del self._items[key]
            return None
        self._items.move_to_end(key)
        return _copied(item)

    def put(self, key: Hashable, item: dict[str, Any]) -> None:
        """Keeps a copy of an item, its pixels shared, if it fits."""
        if key in self._items:
            return
        size = _size(item)
        if size > self.max_bytes:
            return
        self._items[key] = size, _versions(item), _copied(item)
        self.bytes += size
        while self.bytes > self.max_bytes:
            self.bytes -= self._items.popitem(last=False)[1][0]


def _size(value: Any) -> int:
    """Bytes of all tensors and arrays, those of masks and boxes included."""
    if isinstance(value, Tensor | np.ndarray):
        return value.nbytes
    if isinstance(value, BaseDataElement | Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    if isinstance(value, BaseBoxes):
        return value.tensor.nbytes
    if isinstance(value, BaseInstanceMasks):
        return sum(map(_size, vars(value).values()))
    return 0


def _versions(item: dict[str, Any]) -> list[int]:
    """How often the tensors of an item's pixels were written to."""
    leaves = tree_leaves(item['inputs'])
    return [leaf._version for leaf in leaves if isinstance(leaf, Tensor)]


def _copied(item: dict[str, Any]) -> dict[str, Any]:
    return {k: v if k == 'inputs' else _own(v) for k, v in item.items()}


def _own(value: Any) -> Any:
    """A deep copy, in a fraction of the time that ``deepcopy`` takes."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, BaseDataElement):
        own = copy.copy(value)
        vars(own).update({name: _own(field) for name, field in vars(value).items()})
        return own
    if type(value) in (tuple, set):
        return type(value)(map(_own, value))
    if isinstance(value, str | bytes | int | float | None):
        return value
    return copy.deepcopy(value)
