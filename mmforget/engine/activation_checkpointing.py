"""Encoder layers that are computed again in the backward pass instead of keeping activations."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def check_num_cp(detector: nn.Module, num_cp: int) -> None:
    """Checks that the detector's encoder has so many layers.

    Raises:
        ValueError: It has not, or there is no encoder.
    """
    layers = getattr(getattr(detector, 'encoder', None), 'layers', ())
    if not isinstance(num_cp, int) or not 0 <= num_cp <= len(layers):
        raise ValueError(
            f'num_cp is {num_cp!r}; expected a whole number from 0 to {len(layers)}, the layers of '
            f'the encoder of {type(detector).__name__}.'
        )


@contextmanager
def checkpointed_encoder(detector: nn.Module, num_cp: int) -> Iterator[None]:
    """While open, the lowest ``num_cp`` encoder layers keep their inputs only.

    What MMDetection's ``encoder.num_cp`` stands for, whose wrapper (of fairscale) is re-entrant:
    it gives no gradient to adapters in a layer whose input needs none, as above a frozen trunk.
    The wrapper is set aside meanwhile. Losses and gradients are those of the plain layers.

    Args:
        detector: The plain detector.
        num_cp: Number of layers, from the image upwards.
    """
    encoder = getattr(detector, 'encoder', None)
    theirs = getattr(encoder, 'num_cp', 0)
    layers = list(getattr(encoder, 'layers', ()))
    before = [layer.__dict__.get('forward') for layer in layers]
    for index, layer in enumerate(layers):
        if index < theirs:
            layer.__dict__.pop('forward', None)
        if index < num_cp:
            layer.forward = functools.partial(_recomputed, layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            layer.__dict__.pop('forward', None)
            if forward is not None:
                layer.forward = forward


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
