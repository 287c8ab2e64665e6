"""Another attribute for a module, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced(module: nn.Module, name: str, by: Any) -> Iterator[None]:
    """While open, a module has another method or child; what was there before comes back.

    Args:
        module: Changed in place.
        name: Of a method of its class, of one that was set on it, or of a child.
        by: What stands there meanwhile; for a child a module or none.
    """
    own = vars(module).get(name, module._modules.get(name))
    setattr(module, name, by)
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)
