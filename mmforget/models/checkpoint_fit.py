"""Whether a checkpoint fits a detector: MMEngine loads what fits and goes on with the rest."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

_SHOWN = 3
_WEIGHTS = ('weight', 'bias', 'lora_A', 'lora_B')
_STATISTICS = ('running_mean', 'running_var')


def check_fit(model: nn.Module, checkpoint: Any, name: str) -> None:
    """Refuses a checkpoint that would leave a part of the detector random, or be left out itself.

    Refused are: a weight or a normalisation statistic of the detector that the checkpoint lacks or
    has in another shape; a weight of the checkpoint that belongs to the head, the neck or the
    transformer of the detector and finds no place there; values that are not finite. What else
    does not match is logged: further buffers, surplus tensors of the backbone, and parts that the
    detector does not have (a mask head).

    Args:
        model: The detector; the checkpoint's tensors are loaded into it, so that older names are
            translated as the modules themselves do it.
        checkpoint: What the checkpoint loader returned.
        name: The checkpoint's name for messages.

    Raises:
        ValueError: It holds no weights, or they do not fit.
    """
    state = _weights_of(checkpoint, name)
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(
            f'{name} holds NaN or infinity in {_listed(broken)}; expected finite weights. It was '
            'written by a training that had diverged: take an earlier checkpoint.'
        )
    own = model.state_dict()
    reshaped = [k for k, v in state.items() if k in own and v.shape != own[k].shape]
    fitting = type(state)((k, v) for k, v in state.items() if k not in reshaped)
    fitting._metadata = getattr(state, '_metadata', {})
    missing, surplus = model.load_state_dict(fitting, strict=False)
    missing = [k for k in missing if k not in reshaped and not _shared(k, model, fitting)]

    parameters = {k for k, _ in model.named_parameters(remove_duplicate=False)}
    lost = [k for k in missing if k in parameters or k.endswith(_STATISTICS)]
    homeless = [k for k in surplus if _belongs(k, model)]
    if lost or reshaped or homeless:
        shapes = [f'{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}' for k in reshaped]
        found = {'missing': lost, 'of another shape': shapes, 'unexpected': homeless}
        raise ValueError(
            f'{name} does not fit the detector of the config: '
            + '; '.join(f'{len(v)} tensors {k}: {_listed(v)}' for k, v in found.items() if v)
            + '. Expected a checkpoint of this very detector; weights that find no counterpart '
            'would be random or left out. Set load_from to such a checkpoint, or take the model '
            '(num_classes, number of layers, as_two_stage, with_box_refine) from the config that '
            'the checkpoint was trained with.'
        )
    rest = [k for k in (*missing, *surplus) if not k.endswith('num_batches_tracked')]
    if rest:
        print_log(
            f'{name}: {len(rest)} tensors have no counterpart in the detector or the checkpoint, '
            f'and matter to neither: {_listed(rest)}.',
            logger='current',
            level=logging.WARNING,
        )


def _weights_of(checkpoint: Any, name: str) -> Mapping[str, Tensor]:
    """The state dict without the prefix that a parallel wrapper left, as MMEngine reads it."""
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    tensors = {}
    if isinstance(state, Mapping):
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        kind = type(checkpoint).__name__
        if isinstance(checkpoint, Mapping):
            kind = f'a dict with the keys {_listed([repr(key) for key in checkpoint])}'
        raise ValueError(
            f"{name} holds no detector's weights but {kind}; expected a dict of tensors, or one "
            "under the key 'state_dict', as MMDetection writes it. Set load_from to such a file, "
            'or save the weights of this one in that form.'
        )
    weights = _StateDict((re.sub(r'^module\.', '', key), value) for key, value in tensors.items())
    weights._metadata = getattr(state, '_metadata', {})
    return weights


class _StateDict(dict):
    """A dict that can carry the versions of the modules, as torch's own state dicts do."""

    _metadata: Mapping[str, Any]


def _shared(key: str, model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a missing tensor came under another name: shared ones may be saved once."""
    own = dict(model.named_parameters(remove_duplicate=False))
    return key in own and any(own.get(other) is own[key] for other in state)


def _belongs(key: str, model: nn.Module) -> bool:
    """Whether a surplus tensor is a weight of a part, other than the backbone, of the detector."""
    part, _, rest = key.partition('.')
    return part != 'backbone' and part in model._modules and rest.endswith(_WEIGHTS)


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more
