"""Remembers what the pipeline made of an image, so that it is read and decoded once."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


class ItemMemory:
    """Items of streams, bounded in bytes; the one that was not asked for longest leaves first.

    Pays where the same item comes again: with ``augmentations`` in the sampling.

    Args:
        max_bytes: Upper bound of what is kept, pixels and annotations.

    Attributes:
        bytes: Kept now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._items: OrderedDict[Hashable, tuple[int, dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Hashable) -> dict[str, Any] | None:
        """A copy of an item, its pixels shared: annotations are changed on their way."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return _copied(self._items[key][1])

    def put(self, key: Hashable, item: dict[str, Any]) -> None:
        """Keeps a copy of an item, its pixels shared, if it fits."""
        if key in self._items:
            return
        size = _size(item)
        if size > self.max_bytes:
            return
        self._items[key] = size, _copied(item)
        self.bytes += size
        while self.bytes > self.max_bytes:
            self.bytes -= self._items.popitem(last=False)[1][0]


def _size(item: dict[str, Any]) -> int:
    pixels = [leaf for leaf in tree_leaves(item['inputs']) if isinstance(leaf, Tensor)]
    # Masks may outweigh the pixels; as bytes, all annotations have a size.
    others = pickle.dumps({name: value for name, value in item.items() if name != 'inputs'})
    return sum(tensor.numel() * tensor.element_size() for tensor in pixels) + len(others)


def _copied(item: dict[str, Any]) -> dict[str, Any]:
    return {k: v if k == 'inputs' else copy.deepcopy(v) for k, v in item.items()}
