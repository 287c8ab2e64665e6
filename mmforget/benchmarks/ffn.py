"""Level ``ffn``: forward and backward of one feed-forward network with adapters."""

from functools import partial

import torch
from torch import nn

from mmforget.benchmarks.adapter_libraries import (
    Library,
    adapt,
    with_loralib,
    with_mmforget,
    with_peft,
)
from mmforget.benchmarks.measurement import Action, Case, Settings

CHANNELS, HIDDEN = 256, 1024
FROZEN = 'frozen, no adapter'
LIBRARIES: dict[str, Library | None] = {
    FROZEN: None,
    'loralib': with_loralib,
    'peft': with_peft,
    'mmforget': with_mmforget,
}


class FFN(Action):
    """A linear, a ReLU and a linear; the input needs its gradient, as between adapters.

    Args:
        tokens: Rows of the input.
        library: Whose adapters; ``None`` for none.
        device: ``'cpu'`` or ``'cuda'``.
        dtype: Below float32 it runs under autocast.
    """

    def __init__(
        self, tokens: int, library: Library | None, device: str, dtype: torch.dtype
    ) -> None:
        torch.manual_seed(0)
        layers = (
            nn.Linear(CHANNELS, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, CHANNELS),
        )
        self.module = nn.Sequential(*layers).requires_grad_(False)
        if library is not None:
            adapt(self.module, ['0', '2'], library)
        self.module.to(device)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.trainable = sum(p.numel() for p in self.parameters)
        self.x = torch.randn(1, tokens, CHANNELS, device=device, requires_grad=True)
        self.gradient = torch.randn_like(self.x)
        self.dtype = dtype
        self.calls = max(1, min(50, 30_000 // tokens))

    def __call__(self) -> None:
        for tensor in (self.x, *self.parameters):
            tensor.grad = None
        with torch.autocast(self.x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.module(self.x)
        out.backward(self.gradient.to(out.dtype))


def cases(settings: Settings) -> list[Case]:
    """One case for each number of tokens: queries, one image, three images' tokens."""
    sizes = (64,) if settings.quick else (600, 8_400, 22_000)
    dtypes = ('float32', 'bfloat16') if settings.device == 'cuda' else ('float32',)
    return [
        Case(
            level='ffn',
            title=f'{tokens:,} tokens, {CHANNELS} to {HIDDEN} to {CHANNELS}, {dtype}',
            reference=FROZEN,
            variants={
                name: partial(FFN, tokens, library, settings.device, getattr(torch, dtype))
                for name, library in LIBRARIES.items()
            },
            counted=True,
            dtype=dtype,
        )
        for dtype in dtypes
        for tokens in sizes
    ]
