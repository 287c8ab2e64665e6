"""Low-rank adapters: the layer, where it goes, groups of them, and files.

Needs torch and safetensors only.
"""

from .groups import (
    AdapterGroup,
    group_norms,
    group_penalty,
    make_groups,
    proximal_step,
    zero_,
    zero_groups,
)
from .injection import block_of, check_injection, find_targets, inject, remove, remove_one
from .io import (
    AdapterState,
    adapter_state,
    apply_adapters,
    concatenate,
    load_adapters,
    load_extra,
    save_adapters,
)
from .lora import LoRALinear, disable_adapters

__all__ = [
    'AdapterGroup',
    'AdapterState',
    'LoRALinear',
    'adapter_state',
    'apply_adapters',
    'block_of',
    'check_injection',
    'concatenate',
    'disable_adapters',
    'find_targets',
    'group_norms',
    'group_penalty',
    'inject',
    'load_adapters',
    'load_extra',
    'make_groups',
    'proximal_step',
    'remove',
    'remove_one',
    'save_adapters',
    'zero_',
    'zero_groups',
]
