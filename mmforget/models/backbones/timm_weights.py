"""Pre-trained weights of timm for a transformer that this package built with timm."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from mmforget.models.timm_import import import_timm

# Arguments with which a model's patch embedding is another one than that of the weights.
_OF_PATCHES = ('patch_size', 'in_chans')
_PATCH_EMBEDDING = 'patch_embed.'


def load_timm_weights(
    model: nn.Module, name: str, source: str, model_args: Mapping[str, Any]
) -> None:
    """Loads what timm has for a model, or a file that timm can read, into the model.

    Position embeddings are resampled to the model's own grid, by timm. Where ``model_args`` gives
    the patches another size or other channels, the patch embedding stays the model's own.

    Args:
        model: What timm built, perhaps pruned of its last blocks; changed in place.
        name: timm's name of the model.
        source: ``'hub'``, or the path of a checkpoint.
        model_args: What it was built with.

    Raises:
        FileNotFoundError: ``source`` is no file.
        RuntimeError: timm cannot fetch or read the weights.
        ValueError: They lack some of the model's weights, or have another shape.
    """
    own_patches = any(key in model_args for key in _OF_PATCHES)
    with _watched_loading() as missing:
        theirs = _load(name, source, model_args, own_patches)
    if own_patches:
        rows_and_columns = zip(
            model.patch_embed.grid_size, theirs.patch_embed.patch_size, strict=True
        )
        theirs.set_input_size(img_size=tuple(side * patch for side, patch in rows_and_columns))
    wanted = {
        key: value
        for key, value in model.state_dict().items()
        if not (own_patches and key.startswith(_PATCH_EMBEDDING))
    }
    state = theirs.state_dict()
    unfit = [
        key
        for key, value in wanted.items()
        if key in missing or key not in state or state[key].shape != value.shape
    ]
    if unfit:
        raise ValueError(
            f'The weights that timm has for {name} lack {len(unfit)} of the {len(wanted)} tensors '
            f'of this model or have another shape, the first is {unfit[0]}. Leave out arguments '
            'in timm_args that change the architecture, or give pretrained=False.'
        )
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)


@contextmanager
def _watched_loading() -> Iterator[set[str]]:
    """While open, notes the weights that a model is not given: timm goes on with random ones."""
    original = nn.Module.load_state_dict
    missing: set[str] = set()

    @functools.wraps(original)
    def watched(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        missing.update(result.missing_keys)
        return result

    nn.Module.load_state_dict = watched
    try:
        yield missing
    finally:
        nn.Module.load_state_dict = original


def _load(name: str, source: str, model_args: Mapping[str, Any], own_patches: bool) -> nn.Module:
    """A model of timm with its weights; with patches as the weights have them."""
    timm = import_timm()
    overlay = None
    if source != 'hub':
        if not Path(source).is_file():
            raise FileNotFoundError(
                f"pretrained={source!r} is no file; expected True for timm's hub, or the path of "
                f'a checkpoint of {name}.'
            )
        overlay = {'file': source}
    left_out = (*_OF_PATCHES, 'img_size') if own_patches else ()
    shapes = {key: value for key, value in model_args.items() if key not in left_out}
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **shapes
        )
    except Exception as error:  # A hub's client raises whatever its HTTP library raises.
        where = 'from its hub' if overlay is None else f'from {source}'
        raise RuntimeError(
            f'timm could not give the pre-trained weights of {name} {where}: '
            f'{type(error).__name__}: {error}. Where no hub can be reached, give '
            'pretrained=<path of a file>, or pretrained=False and load_from=<checkpoint of the '
            'whole detector>.'
        ) from error
