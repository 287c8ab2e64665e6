"""torch.compile for the parts of a detector that gain by it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import nn

# Parts whose forward is tensors in, tensors out; the head's matching leaves the device anyway.
_WHOLE = ('backbone', 'neck')
_LAYERED = ('encoder', 'decoder')


@contextmanager
def compiled(detector: nn.Module, options: bool | Mapping[str, Any]) -> Iterator[None]:
    """While open, backbone, neck and each transformer layer are compiled when first called.

    Deformable attention stays as it is: its operator is mmcv's own and unknown to the compiler,
    and the form that mmcv runs on a CPU reads the levels' sizes out of a tensor. Compiled around
    it, a layer is left in two pieces instead of dozens.

    Args:
        detector: The plain detector.
        options: ``True``, or arguments of ``torch.compile``; ``False`` changes nothing.
    """
    arguments = dict(options) if isinstance(options, Mapping) else {}
    if options is False:
        yield
        return
    with ExitStack() as stack:
        for part in _parts(detector):
            for module in part.modules():
                if isinstance(module, MultiScaleDeformableAttention):
                    stack.enter_context(
                        _forward(module, torch.compiler.disable(module.forward, recursive=True))
                    )
            stack.enter_context(_forward(part, torch.compile(part.forward, **arguments)))
        yield


def _parts(detector: nn.Module) -> list[nn.Module]:
    parts = [getattr(detector, name, None) for name in _WHOLE]
    for name in _LAYERED:
        parts += getattr(getattr(detector, name, None), 'layers', ())
    return [part for part in parts if isinstance(part, nn.Module)]


@contextmanager
def _forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """While open, the module answers with another forward."""
    before = module.__dict__.get('forward')
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
