"""How adapters come into a model and go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .lora import LoRALinear
from .lora_conv import LoRAConv2d
from .low_rank import LowRankLayer, check_rank, matrix_sides
from .targets import _shorten, find_targets

_structure_version = 0


def structure_version() -> int:
    """A number that grows whenever an adapter comes or goes, in any model of this process."""
    return _structure_version


def inject(
    model: nn.Module,
    targets: str | Sequence[str],
    rank: int,
    alpha: float,
    seed: int = 0,
    within: str | None = None,
) -> dict[str, LowRankLayer]:
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
        within: See :func:`find_targets`.

    Returns:
        Path -> adapter, in model order.

    Raises:
        ValueError: No layer matches, the rank does not fit a layer, or a target's weight is tied to
            another module (folding the adapter would change that module as well). Nothing is
            changed then.
    """
    layers = check_injection(model, targets, rank, within)
    adapters = {
        name: adapted(layer, rank, alpha, layer_generator(seed, name))
        for name, layer in layers.items()
    }
    model.requires_grad_(False)
    for name, adapter in adapters.items():
        adapter.lora_A.requires_grad_(True)
        adapter.lora_B.requires_grad_(True)
        _replace(model, layers[name], adapter)
    return adapters


def adapted(
    layer: nn.Module, rank: int, alpha: float, generator: torch.Generator | None = None
) -> LowRankLayer:
    """The layer that replaces a linear layer or a convolution; see its class for the arguments."""
    kind = LoRAConv2d if isinstance(layer, nn.Conv2d) else LoRALinear
    return kind(layer, rank, alpha, generator)


def check_injection(
    model: nn.Module, targets: str | Sequence[str], rank: int, within: str | None = None
) -> dict[str, nn.Module]:
    """Find the target layers and check that :func:`inject` can put adapters on them.

    Args:
        model: Read only.
        targets: See :func:`find_targets`.
        rank: Rank of every adapter.
        within: See :func:`find_targets`.

    Returns:
        Path -> layer, in model order.

    Raises:
        ValueError: As :func:`inject`.
    """
    layers = find_targets(model, targets, within)
    for name, layer in layers.items():
        rows, columns = matrix_sides(layer)
        check_rank(rank, columns, rows, name)
    check_untied(model, layers)
    return layers


def layer_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the layer's path only."""
    digest = hashlib.sha256(f'{seed}:{name}'.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], 'big') >> 1)


def check_untied(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
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


def remove_one(model: nn.Module, name: str, fold: bool) -> nn.Module:
    """Put the original layer back in the place of one adapter; its weight stays frozen.

    Args:
        model: Changed in place.
        name: Path of the adapter.
        fold: Whether the update is added to the weight, exactly as :meth:`LowRankLayer.merge` adds
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
    model: nn.Module, adapters: Mapping[str, LowRankLayer], fold: bool
) -> dict[str, nn.Module]:
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


def _adapter_at(model: nn.Module, name: str) -> LowRankLayer:
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if not isinstance(module, LowRankLayer):
        found = 'no module' if module is None else f'a {type(module).__name__}'
        present = [n for n, m in model.named_modules() if isinstance(m, LowRankLayer)]
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
