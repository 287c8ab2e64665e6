"""Which layers of a model get an adapter, and how the adapters come and go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from .lora import LoRALinear, check_rank

#: Target presets: name -> regex over full module paths.
#:
#: ``ffn`` is the placement of arXiv 2403.11530 (section 4.1): the two linears of the feed-forward
#: network of every transformer layer. The alternatives: encoder and decoder layers of DETR-like
#: detectors of MMDetection (``ffn`` now, ``ffns.<i>`` in older mmcv), and the blocks of timm's
#: vision transformers. The transformer inside a Swin backbone is left out on purpose; name it with
#: a regex.
PRESETS: dict[str, str] = {
    'ffn': r'(?:.*\.)?(?:'
    r'(?:encoder|decoder)\.layers\.\d+\.(?:ffn|ffns\.\d+)\.layers\.\d+(?:\.0)?'
    r'|blocks\.\d+\.mlp\.fc[12]'
    r')',
}

#: Path components inside a transformer block, at which :func:`block_of` cuts.
_INSIDE_BLOCK = frozenset({'ffn', 'ffns', 'mlp', 'attn', 'self_attn', 'cross_attn', 'attentions'})


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    """All linears that could carry an adapter, in model order.

    The output projection inside ``nn.MultiheadAttention`` is left out: torch reads its weight and
    never calls it, so an adapter there would do nothing.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, LoRALinear)
        and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    }


def _shorten(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    if not names:
        return 'none'
    more = f', ... and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def find_targets(model: nn.Module, targets: str | Sequence[str]) -> dict[str, nn.Linear]:
    """Find the linear layers that ``targets`` names.

    Args:
        model: The model to search.
        targets: ``'ffn'`` (see :data:`PRESETS`), or an exact module path, or a regex that must
            match a whole path, or a list of any of these. A text that is an exact path is never
            read as a regex. Only ``nn.Linear`` modules without an adapter count.

    Returns:
        Path -> layer, in model order. A layer that sits in the model under several paths appears
        under the first.

    Raises:
        ValueError: Nothing matches, one entry of a list matches nothing, or a regex is malformed.
    """
    entries = [targets] if isinstance(targets, str) else list(targets)
    linears = _linears(model)

    def fail(problem: str) -> ValueError:
        adapted = [n for n, m in model.named_modules() if isinstance(m, LoRALinear)]
        note = f' {len(adapted)} layers carry an adapter and do not count.' if adapted else ''
        return ValueError(
            f"{problem}.{note} nn.Linear layers of this model: {_shorten(linears)}. Give 'ffn', "
            'exact names from this list, or a regex that matches whole names, e.g. '
            "targets=r'.*\\.fc[12]'."
        )

    chosen: set[str] = set()
    for entry in entries:
        if not isinstance(entry, str):
            raise fail(f'targets={targets!r}: the entry {entry!r} is not a text')
        if entry in PRESETS:
            hits = {name for name in linears if re.fullmatch(PRESETS[entry], name)}
        elif entry in linears:
            hits = {entry}
        else:
            try:
                pattern = re.compile(entry)
            except re.error as error:
                raise fail(f'targets={targets!r}: {entry!r} is no valid regex ({error})') from None
            hits = {name for name in linears if pattern.fullmatch(name)}
        if not hits:
            raise fail(f'targets={targets!r}: {entry!r} matches no layer')
        chosen |= hits
    if not chosen:
        raise fail(f'targets={targets!r} matches no layer')
    return {name: layer for name, layer in linears.items() if name in chosen}


_structure_version = 0


def structure_version() -> int:
    """A number that grows whenever an adapter comes or goes, in any model of this process."""
    return _structure_version


def inject(
    model: nn.Module, targets: str | Sequence[str], rank: int, alpha: float, seed: int = 0
) -> dict[str, LoRALinear]:
    """Put adapters on the target layers and freeze every other parameter of the model.

    The output of the model does not change by a bit. Each layer's first ``lora_A`` depends on
    ``seed`` and the layer's path alone. A layer that the model holds under several paths is
    replaced at all of them.

    Args:
        model: Changed in place.
        targets: See :func:`find_targets`.
        rank: Rank of every adapter.
        alpha: Scaling numerator; the update is scaled by ``alpha / rank``.
        seed: Seed of the initialisation.

    Returns:
        Path -> adapter, in model order.

    Raises:
        ValueError: No layer matches, the rank does not fit a layer, or a target's weight is tied to
            another module (folding the adapter would change that module as well). Nothing is
            changed then.
    """
    layers = check_injection(model, targets, rank)
    adapters = {
        name: LoRALinear.from_linear(layer, rank, alpha, layer_generator(seed, name))
        for name, layer in layers.items()
    }
    model.requires_grad_(False)
    for name, adapter in adapters.items():
        adapter.lora_A.requires_grad_(True)
        adapter.lora_B.requires_grad_(True)
        _replace(model, layers[name], adapter)
    return adapters


def check_injection(
    model: nn.Module, targets: str | Sequence[str], rank: int
) -> dict[str, nn.Linear]:
    """Find the target layers and check that :func:`inject` can put adapters on them.

    Args:
        model: Read only.
        targets: See :func:`find_targets`.
        rank: Rank of every adapter.

    Returns:
        Path -> layer, in model order.

    Raises:
        ValueError: As :func:`inject`.
    """
    layers = find_targets(model, targets)
    for name, layer in layers.items():
        check_rank(rank, layer.in_features, layer.out_features, name)
    check_untied(model, layers)
    return layers


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the layer's path only."""
    digest = hashlib.sha256(f'{seed}:{name}'.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], 'big') >> 1)


def check_untied(model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
    """Check that no other module of the model holds the weight of one of these layers.

    Raises:
        ValueError: A weight is held by two modules.
    """
    wanted = {id(layer.weight): (name, layer) for name, layer in layers.items()}
    for other_name, other in model.named_modules():
        for parameter in other._parameters.values():
            name, layer = wanted.get(id(parameter), ('', other))
            if layer is not other:
                raise ValueError(
                    f"the weight of layer '{name}' is also a parameter of '{other_name}': an "
                    'adapter folded into the one would change the other. Untie the weights or '
                    'leave the layer out of the targets.'
                )


def remove_one(model: nn.Module, name: str, fold: bool) -> nn.Linear:
    """Put the original layer back in the place of one adapter; its weight stays frozen.

    Args:
        model: Changed in place.
        name: Path of the adapter.
        fold: Whether the update is added to the weight, exactly as :meth:`LoRALinear.merge` adds
            it, or dropped. An adapter that is merged at the time is unmerged when dropped.

    Returns:
        The very object that the adapter had replaced.

    Raises:
        ValueError: There is no adapter at ``name``.
    """
    adapter = _adapter_at(model, name)
    if fold and not adapter.merged:
        adapter.merge()
    elif not fold and adapter.merged:
        adapter.unmerge()
    original = adapter.original
    _replace(model, adapter, original)
    return original


def remove(
    model: nn.Module, adapters: Mapping[str, LoRALinear], fold: bool
) -> dict[str, nn.Linear]:
    """Put the original layers back in the place of ``adapters``; see :func:`remove_one`.

    Args:
        model: Changed in place.
        adapters: What :func:`inject` returned, less what has been removed since.
        fold: Whether the updates are added to the weights or dropped.

    Returns:
        Path -> original layer.

    Raises:
        ValueError: One of the names holds no adapter, or another one. Nothing is changed then.
    """
    for name, adapter in adapters.items():
        if _adapter_at(model, name) is not adapter:
            raise ValueError(
                f"the adapter at '{name}' of this model is not the one that was given: pass the "
                'adapters that inject() returned for this very model'
            )
    return {name: remove_one(model, name, fold) for name in adapters}


def _adapter_at(model: nn.Module, name: str) -> LoRALinear:
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if not isinstance(module, LoRALinear):
        found = 'no module' if module is None else f'a {type(module).__name__}'
        present = [n for n, m in model.named_modules() if isinstance(m, LoRALinear)]
        raise ValueError(
            f"no adapter at '{name}': there is {found}. Adapters of this model: "
            f'{_shorten(present)}.'
        )
    return module


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module in all parents that hold it."""
    global _structure_version
    _structure_version += 1
    for parent in model.modules():
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new


def block_of(name: str) -> str:
    """The transformer block that a layer sits in, the paper's unit of selection.

    The path is cut at its first component that is the inside of a block (``ffn``, ``mlp``,
    ``attn``, ...). A path without one is cut behind its last number that is not its last component;
    without such a number, the parent is the block.

    Args:
        name: Path of a layer, e.g. ``encoder.layers.0.ffn.layers.0.0``.

    Returns:
        Path of the block, e.g. ``encoder.layers.0``; empty for a layer at the root.
    """
    parts = name.split('.')
    for index, part in enumerate(parts):
        if part in _INSIDE_BLOCK:
            return '.'.join(parts[:index])
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].isdigit():
            return '.'.join(parts[: index + 1])
    return '.'.join(parts[:-1])
