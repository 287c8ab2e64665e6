"""What a model is built of, told by how its modules are put together, not by their names.

Three things are looked for. An attention is a module with a whole number ``num_heads``. A
feed-forward network is a chain of linear layers (or 1×1 convolutions) that widens its input and
narrows it to the same width again. A transformer block is the smallest module that holds an
attention and, beside it, a feed-forward network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from .lora_conv import can_adapt_conv
from .low_rank import applies_its_weight, matrix_sides

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# Path components inside a transformer block, at which `block_of` cuts.
_INSIDE_BLOCK = frozenset({'ffn', 'ffns', 'mlp', 'attn', 'self_attn', 'cross_attn', 'attentions'})


def can_adapt(module: nn.Module) -> bool:
    """Whether a module is a layer whose weight can get a low-rank update, or has one already.

    The output projection inside ``nn.MultiheadAttention`` cannot: torch reads its weight and never
    calls it, so an adapter there would do nothing.
    """
    if isinstance(module, nn.Linear):
        bare = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
        return not bare and applies_its_weight(module, nn.Linear)
    return can_adapt_conv(module)


def adaptable_layers(module: nn.Module, prefix: str = '') -> dict[str, nn.Module]:
    """Path -> layer, for all layers inside that :func:`can_adapt` names, in model order."""
    return {n: m for n, m in module.named_modules(prefix=prefix) if can_adapt(m)}


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention: it says how many heads it has."""
    heads = getattr(module, 'num_heads', None)
    return isinstance(heads, int) and not isinstance(heads, bool) and heads > 0


def holds_attention(module: nn.Module) -> bool:
    """Whether there is an attention inside, or the module is one."""
    return any(is_attention(inner) for inner in module.modules())


def _holds_another_attention(module: nn.Module) -> bool:
    return any(is_attention(inner) for inner in module.modules() if inner is not module)


def is_feed_forward(layers: Sequence[nn.Module]) -> bool:
    """Whether layers make up a feed-forward network: they widen their input, and narrow it again.

    Two layers, or more: gated networks have two that read the input, and some have one between.

    Args:
        layers: Those that can be adapted, in model order.
    """
    if len(layers) < 2 or any(not _acts_on_channels(layer) for layer in layers):
        return False
    sides = [matrix_sides(layer) for layer in layers]  # (out, in)
    width = sides[0][1]
    hidden = [sides[0][0], sides[-1][1], *(side for pair in sides[1:-1] for side in pair)]
    return (
        sides[-1][0] == width
        and sides[0][0] > width
        and sides[-1][1] > width
        and all(side >= width for side in hidden)
    )


def _acts_on_channels(layer: nn.Module) -> bool:
    """Whether every place of the input is treated by itself."""
    return isinstance(layer, nn.Linear) or tuple(layer.kernel_size) == (1, 1)


def transformer_blocks(model: nn.Module) -> dict[str, list[str]]:
    """Finds all transformer blocks.

    Args:
        model: Read only.

    Returns:
        Path of the block -> paths of the layers of its feed-forward networks, in model order.
    """
    blocks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        # A block may know its attention's heads, too.
        if isinstance(module, _CONTAINERS) or (
            is_attention(module) and not _holds_another_attention(module)
        ):
            continue
        layers = list(_feed_forward_layers(module, name))
        if layers:
            blocks[name] = layers
    return blocks


def _feed_forward_layers(block: nn.Module, name: str) -> Iterator[str]:
    """Layers of the feed-forward networks beside an attention, as direct parts of ``block``."""
    parts = dict(_parts(block, name))
    if not any(holds_attention(part) for part in parts.values()):
        return
    own = {n: part for n, part in parts.items() if can_adapt(part)}
    if is_feed_forward(list(own.values())):
        yield from own
    for part_name, part in parts.items():
        if not can_adapt(part) and not holds_attention(part):
            inside = adaptable_layers(part, part_name)
            if is_feed_forward(list(inside.values())):
                yield from inside


def _parts(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The direct children of a module; those of a container in its place, unless it is a network.

    A sequence of layers may be a feed-forward network itself.
    """
    for child_name, child in module.named_children():
        path = f'{name}.{child_name}' if name else child_name
        in_place = isinstance(child, nn.Sequential) and not holds_attention(child)
        if isinstance(child, _CONTAINERS) and not in_place:
            yield from _parts(child, path)
        else:
            yield path, child


def attention_layers(model: nn.Module) -> list[str]:
    """Paths of the layers inside the attentions of transformer blocks: query, key, value, output.

    What ``nn.MultiheadAttention`` holds as bare parameters is not among them.
    """
    found = {}
    for block_name in transformer_blocks(model):
        block = model.get_submodule(block_name)
        for part_name, part in _parts(block, block_name):
            if holds_attention(part):
                found |= adaptable_layers(part, part_name)
    return [name for name in found if not _is_read_by_its_owner(model, name)]


def _is_read_by_its_owner(model: nn.Module, name: str) -> bool:
    """Whether an attention takes the layer's weight with biases of its own and never calls it.

    So do some of timm's with their ``qkv``.
    """
    owner, _, last = name.rpartition('.')
    return last == 'qkv' and isinstance(
        getattr(model.get_submodule(owner), 'q_bias', None), nn.Parameter
    )


def block_of_layer(name: str, blocks: Sequence[str]) -> str | None:
    """The innermost of some blocks that a layer lies in, by their paths; ``None`` for none."""
    around = [block for block in blocks if not block or name.startswith(f'{block}.')]
    return max(around, key=len, default=None)


def stage_of(model: nn.Module, name: str) -> str:
    """The stage that a layer belongs to: the unit of selection where there are no blocks.

    Of a backbone, the first sequence on the way to the layer (``backbone.layer3``), or the entry of
    the first list (``backbone.layers.2``); elsewhere the first sequence or list
    (``neck.fpn_convs``, ``bbox_head.cls_convs``). Without one, the module that the layer is in.

    Args:
        model: The detector.
        name: Path of a layer.
    """
    parts = name.split('.')
    for index in range(1, len(parts)):
        path = '.'.join(parts[:index])
        module = model.get_submodule(path)
        if isinstance(module, nn.ModuleList) and index + 1 < len(parts) and _of_backbone(path):
            return f'{path}.{parts[index]}'
        if isinstance(module, _CONTAINERS):
            return path
    return '.'.join(parts[:-1])


def _of_backbone(path: str) -> bool:
    return path.split('.')[0] == 'backbone'


def convolution_layers(model: nn.Module) -> list[str]:
    """Paths of the layers of a detector without transformer blocks that adapters are good for.

    1×1 and 3×3 convolutions, and linear layers (a box head's). Left out are those of a head that
    give scores and boxes: layers whose width no layer of the same head takes in. A class that is
    forgotten in them is forgotten by name only.

    Args:
        model: The detector, whose ``backbone`` and ``neck`` are no heads.
    """
    chosen = []
    for part_name, part in model.named_children():
        layers = adaptable_layers(part, part_name)
        taken_in = {_input_width(layer) for layer in layers.values()}
        is_head = part_name not in ('backbone', 'neck')
        for name, layer in layers.items():
            square = isinstance(layer, nn.Linear) or tuple(layer.kernel_size) in ((1, 1), (3, 3))
            if square and (not is_head or matrix_sides(layer)[0] in taken_in):
                chosen.append(name)
    return chosen


def head_layers(model: nn.Module) -> list[str]:
    """Paths of those of ``convolution_layers`` that lie in heads without attention.

    Beside the feed-forward networks of a backbone's transformer blocks, in a detector that has none
    of its own.

    Args:
        model: The detector.
    """
    heads = plain_heads(model)
    return [name for name in convolution_layers(model) if name.split('.')[0] in heads]


def plain_heads(model: nn.Module) -> set[str]:
    """Names of a detector's parts that MMDetection calls heads and that hold no attention."""
    return {
        name
        for name, part in model.named_children()
        if 'head' in name and not holds_attention(part)
    }


def _input_width(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def block_of(name: str) -> str:
    """The block that a layer sits in, told by its path alone.

    For layers outside of transformer blocks (a residual block), or where no model is at hand. The
    path is cut at its first component that is the inside of a block (``ffn``, ``mlp``,
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
