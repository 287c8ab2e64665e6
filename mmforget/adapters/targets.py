"""Which layers of a model get an adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from .low_rank import LowRankLayer
from .structure import (
    adaptable_layers,
    attention_layers,
    convolution_layers,
    head_layers,
    transformer_blocks,
)


def _feed_forward_layers(model: nn.Module) -> list[str]:
    return [name for layers in transformer_blocks(model).values() for name in layers]


#: Presets: name -> what finds the layers, by structure and not by name.
#:
#: ``ffn`` is the placement of arXiv 2403.11530 (section 4.1): the feed-forward networks of all
#: transformer blocks, of the backbone as of the detector's own transformer. ``attention``: the
#: layers inside their attentions, the alternative of the authors' ``--lora_pos``. ``conv``: the
#: convolutions and hidden linear layers of detectors that have no transformer blocks. ``head``: of
#: those, the ones in heads, beside ``ffn`` where only the backbone has transformer blocks.
PRESETS: dict[str, Callable[[nn.Module], list[str]]] = {
    'ffn': _feed_forward_layers,
    'attention': attention_layers,
    'conv': convolution_layers,
    'head': head_layers,
}
_NOTHING_FOUND = {
    'ffn': ": it has no transformer block. For convolutional detectors there is targets='conv'",
    'attention': ': no attention of a transformer block has layers of its own',
    'conv': ': it has no convolution of 1×1 or 3×3 without groups',
    'head': ': it has no head of convolutions or hidden linear layers',
}


def _shorten(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    if not names:
        return 'none'
    more = f', ... and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def find_targets(
    model: nn.Module, targets: str | Sequence[str], within: str | None = None
) -> dict[str, nn.Module]:
    """Find the layers that ``targets`` names.

    Args:
        model: The model to search.
        targets: ``'ffn'``, ``'attention'``, ``'conv'`` or ``'head'`` (see :data:`PRESETS`), or an
            exact module path, or a regex that must match a whole path, or a list of any of these. A
            text that is an exact path is never read as a regex. Only linear layers and convolutions
            without groups and without an adapter count.
        within: Path of a part of the model, such as ``'backbone'``: layers elsewhere do not count.

    Returns:
        Path -> layer, in model order. A layer that sits in the model under several paths appears
        under the first.

    Raises:
        ValueError: Nothing matches, one entry of a list matches nothing, a regex is malformed, or
            the model has no part ``within``.
    """
    if within is not None and within not in dict(model.named_modules()):
        raise ValueError(
            f'within={within!r}: the model has no such part. It has '
            f'{_shorten(name for name, _ in model.named_children())}.'
        )
    entries = [targets] if isinstance(targets, str) else list(targets)
    layers = {
        name: layer
        for name, layer in adaptable_layers(model).items()
        if not isinstance(layer, LowRankLayer) and (within is None or name.startswith(f'{within}.'))
    }

    def fail(problem: str) -> ValueError:
        adapted = [n for n, m in model.named_modules() if isinstance(m, LowRankLayer)]
        note = f' {len(adapted)} layers carry an adapter and do not count.' if adapted else ''
        linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
        convs = [name for name in layers if name not in linears]
        return ValueError(
            f'{problem}.{note} nn.Linear layers of this model: {_shorten(linears)}. '
            f'Convolutions: {_shorten(convs, 10)}. '
            f'Give one of {", ".join(map(repr, PRESETS))}, exact names from these lists, or a '
            "regex that matches whole names, e.g. targets=r'.*\\.fc[12]'."
        )

    chosen: set[str] = set()
    for entry in entries:
        if not isinstance(entry, str):
            raise fail(f'targets={targets!r}: the entry {entry!r} is not a text')
        if entry in layers:
            hits = {entry}
        elif entry in PRESETS:
            hits = set(PRESETS[entry](model)) & layers.keys()
        else:
            try:
                pattern = re.compile(entry)
            except re.error as error:
                raise fail(f'targets={targets!r}: {entry!r} is no valid regex ({error})') from None
            hits = {name for name in layers if pattern.fullmatch(name)}
        if not hits:
            why = _NOTHING_FOUND.get(entry, '')
            raise fail(f'targets={targets!r}: {entry!r} matches no layer{why}')
        chosen |= hits
    if not chosen:
        raise fail(f'targets={targets!r} matches no layer')
    return {name: layer for name, layer in layers.items() if name in chosen}
