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
from .injection import adapted, check_injection, inject, remove, remove_one
from .io import (
    AdapterState,
    adapter_state,
    apply_adapters,
    concatenate,
    load_adapters,
    load_extra,
    save_adapters,
)
from .lora import LoRALinear
from .lora_conv import LoRAConv2d
from .low_rank import LowRankLayer, disable_adapters, updated_weight
from .structure import block_of, head_layers, plain_heads, stage_of, transformer_blocks
from .targets import find_targets

__all__ = [
    'AdapterGroup',
    'AdapterState',
    'LoRAConv2d',
    'LoRALinear',
    'LowRankLayer',
    'adapted',
    'adapter_state',
    'apply_adapters',
    'block_of',
    'check_injection',
    'concatenate',
    'disable_adapters',
    'find_targets',
    'group_norms',
    'group_penalty',
    'head_layers',
    'inject',
    'load_adapters',
    'load_extra',
    'make_groups',
    'plain_heads',
    'proximal_step',
    'remove',
    'remove_one',
    'save_adapters',
    'stage_of',
    'transformer_blocks',
    'updated_weight',
    'zero_',
    'zero_groups',
]
