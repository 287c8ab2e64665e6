"""Images at their own padded shapes, and what is known of each as one batch again.

What a trunk gives for an image depends on how the image was padded (GroupNorm and convolutions see
the padding), so below a cut each image has the shape that it has without company; above the cut
they are padded to the largest of them, with masks.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# What a DETR-like's encoder gets and gives with one entry per token, so that they are padded alike.
_BY_TOKEN = ('memory', 'feat', 'feat_pos', 'memory_pos')
# Whose masks tell padding; each may be missing where nothing is padded.
_MASKS = {'memory': ('memory_mask',), 'feat': ('feat_mask', 'memory_mask')}


def own_shapes(inputs: Tensor, samples: Sequence[Any]) -> list[tuple[int, int]]:
    """Height and width of each image, padded for itself alone.

    Args:
        inputs: The preprocessed batch, (B, 3, H, W).
        samples: One ``DetDataSample`` per image; ``pad_shape`` is MMDetection's preprocessor's.
    """
    height, width = inputs.shape[-2:]
    own = (sample.get('pad_shape', (height, width)) for sample in samples)
    return [(min(shape[0], height), min(shape[1], width)) for shape in own]


def cropped(inputs: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Each image, (3, h, w), without the padding that its company gave it."""
    return [
        image[:, :height, :width] for image, (height, width) in zip(inputs, shapes, strict=True)
    ]


def as_alone(sample: Any, shape: tuple[int, int]) -> Any:
    """The sample as it would be in a batch of its own."""
    if tuple(sample.batch_input_shape) == shape:
        return sample
    alone = copy.copy(sample)
    alone.set_metainfo({'batch_input_shape': shape})
    return alone


def as_batch(
    entries: Sequence[Mapping[str, Tensor]], device: torch.device, alike: bool = False
) -> dict[str, Tensor]:
    """Outputs of single images as a batch.

    Feature maps and tokens of images of several shapes are padded with zeros and masked. A mask
    that some images lack is one where nothing is masked.

    Args:
        entries: For each image its outputs, each (1, ...).
        device: Where the batch is wanted.
        alike: The images are known to have one shape, so that a GPU need not be asked for it.

    Returns:
        The outputs by name, each (B, ...).
    """
    entries = [{name: value.to(device) for name, value in entry.items()} for entry in entries]
    if not alike and len({_grid(entry) for entry in entries}) > 1:
        entries = _same_grid(entries)
    batch = {}
    for name in dict.fromkeys(name for entry in entries for name in entry):
        given = next(entry[name] for entry in entries if name in entry)
        parts = [entry[name] if name in entry else torch.zeros_like(given) for entry in entries]
        batch[name] = torch.cat(parts)
    return batch


def features_as_batch(
    entries: Sequence[Mapping[str, Tensor]], device: torch.device
) -> tuple[Tensor, ...]:
    """Feature maps of single images, by level, as the levels of a batch, each (B, C, H, W)."""
    levels = []
    for level in range(len(entries[0])):
        maps = [entry[str(level)].to(device) for entry in entries]
        height, width = (max(m.shape[side] for m in maps) for side in (-2, -1))
        levels.append(
            torch.cat([pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in maps])
        )
    return tuple(levels)


def _tokens(entry: Mapping[str, Tensor]) -> str | None:
    """The name of the tokens that an entry is about."""
    return next((name for name in _MASKS if name in entry), None)


def _grid(entry: Mapping[str, Tensor]) -> tuple:
    """How the tokens of an entry lie."""
    name = _tokens(entry)
    if name is None:
        return ()
    if 'spatial_shapes' in entry:
        return tuple(map(tuple, entry['spatial_shapes'][0].tolist()))
    return (entry[name].shape[1],)


def _same_grid(entries: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What the encoder gets or gives for images of several shapes, padded to the largest."""
    name = _tokens(entries[0])
    if 'spatial_shapes' not in entries[0]:
        most = max(entry[name].shape[1] for entry in entries)
        # Attention does not ask for the order of tokens: padding goes to their end.
        return [_with_tokens(entry, lambda value: _end_padded(value, most)) for entry in entries]
    shapes = [entry['spatial_shapes'][0] for entry in entries]
    grid = torch.stack(shapes).amax(dim=0)
    return [_on_grid(entry, own, grid) for entry, own in zip(entries, shapes, strict=True)]


def _on_grid(entry: Mapping[str, Tensor], own: Tensor, grid: Tensor) -> dict[str, Tensor]:
    levels = list(zip(own.tolist(), grid.tolist(), strict=True))

    def placed(value: Tensor) -> Tensor:
        parts, start = [], 0
        for (height, width), (rows, columns) in levels:
            part = value[:, start : start + height * width].unflatten(1, (height, width))
            blank = value.new_zeros(len(value), rows, columns, *value.shape[2:])
            blank[:, :height, :width] = part
            parts.append(blank.flatten(1, 2))
            start += height * width
        return torch.cat(parts, dim=1)

    starts = torch.cat([grid.new_zeros(1), grid.prod(1).cumsum(0)[:-1]])
    # Of width and height, in this order, where the shapes have height and width.
    shrunk = (own / grid).flip(-1)
    return _with_tokens(entry, placed) | {
        'spatial_shapes': grid[None],
        'level_start_index': starts[None],
        'valid_ratios': entry['valid_ratios'] * shrunk,
    }


def _with_tokens(
    entry: Mapping[str, Tensor], placed: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """The entry with other tokens; what is no image of its own becomes masked."""
    name = _tokens(entry)
    nothing = torch.zeros(entry[name].shape[:2], dtype=torch.bool, device=entry[name].device)
    changed = {token: placed(entry[token]) for token in _BY_TOKEN if token in entry}
    masks = {mask: ~placed(~entry.get(mask, nothing)) for mask in _MASKS[name]}
    return {**entry, **changed, **masks}


def _end_padded(value: Tensor, tokens: int) -> Tensor:
    blank = value.new_zeros(len(value), tokens - value.shape[1], *value.shape[2:])
    return torch.cat([value, blank], dim=1)
