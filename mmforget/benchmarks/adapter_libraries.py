"""The same adapters by three libraries: loralib, peft and mmforget.

All three start with the same matrices, so that they compute the same losses.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mmforget.adapters import find_targets, inject
from mmforget.adapters.injection import layer_generator

RANK, ALPHA = 8, 1

# Path of a layer -> its A (rank, in) and B (out, rank).
Matrices = dict[str, tuple[Tensor, Tensor]]
Library = Callable[[nn.Module, Mapping[str, nn.Linear], int], Matrices]


def adapt(model: nn.Module, targets: str | list[str], library: Library, rank: int = RANK) -> None:
    """Puts adapters on the targets, freezes the rest, and gives all adapters their start.

    Args:
        model: Changed in place.
        targets: As for :func:`mmforget.adapters.find_targets`.
        library: One of the three functions below.
        rank: Rank of every adapter.
    """
    start_alike(library(model, find_targets(model, targets), rank))


@torch.no_grad()
def start_alike(matrices: Matrices, seed: int = 0) -> None:
    """Kaiming-uniform A; a B that is small but not zero, or equal losses would say little."""
    for name, (lora_A, lora_B) in matrices.items():
        generator = layer_generator(seed, name)
        draw = torch.empty(lora_A.shape)
        nn.init.kaiming_uniform_(draw, a=5**0.5, generator=generator)
        lora_A.copy_(draw)
        lora_B.copy_(1e-3 * torch.randn(lora_B.shape, generator=generator))


def with_loralib(model: nn.Module, layers: Mapping[str, nn.Linear], rank: int) -> Matrices:
    """``loralib.Linear`` in the place of each layer."""
    try:
        import loralib
    except ImportError as error:
        raise _not_installed('loralib', error) from error
    matrices: Matrices = {}
    for name, layer in layers.items():
        adapter = loralib.Linear(
            layer.in_features,
            layer.out_features,
            r=rank,
            lora_alpha=ALPHA,
            bias=layer.bias is not None,
        )
        adapter.weight.data, adapter.bias = layer.weight.data, layer.bias
        adapter.to(layer.weight.device)
        model.set_submodule(name, adapter)
        matrices[name] = (adapter.lora_A, adapter.lora_B)
    loralib.mark_only_lora_as_trainable(model)
    return matrices


def with_peft(model: nn.Module, layers: Mapping[str, nn.Linear], rank: int) -> Matrices:
    """The LoRA layers of peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise _not_installed('peft', error) from error
    config = LoraConfig(r=rank, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=list(layers))
    inject_adapter_in_model(config, model)
    found = {name: model.get_submodule(name) for name in layers}
    return {
        name: (layer.lora_A['default'].weight, layer.lora_B['default'].weight)
        for name, layer in found.items()
    }


def with_mmforget(model: nn.Module, layers: Mapping[str, nn.Linear], rank: int) -> Matrices:
    """The layer of mmforget."""
    adapters = inject(model, list(layers), rank, ALPHA)
    return {name: (layer.lora_A, layer.lora_B) for name, layer in adapters.items()}


def _not_installed(name: str, error: ImportError) -> ImportError:
    return ImportError(
        f'The benchmark compares with {name}, which cannot be imported ({error}). Install it: '
        'pip install loralib peft'
    )
