"""Adapters on disk, in the layout that Hugging Face ``peft`` reads: a folder with two files.

``adapter_config.json`` says which layers and which ranks, ``adapter_model.safetensors`` holds the
matrices under ``base_model.model.<path>.lora_A.weight``. A third file, ``mmforget.json``, carries
what peft has no field for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .injection import check_untied
from .low_rank import LowRankLayer, matrix_sides, updated_weight
from .structure import can_adapt
from .targets import _shorten

CONFIG_FILE = 'adapter_config.json'
WEIGHTS_FILE = 'adapter_model.safetensors'
EXTRA_FILE = 'mmforget.json'

_PREFIX = 'base_model.model.'
_KEY = re.compile(re.escape(_PREFIX) + r'(?P<name>.+)\.lora_(?P<matrix>[AB])\.weight')

#: Fields of peft's LoRA config that change what the matrices mean; set to anything but "off", they
#: are refused.
_UNSUPPORTED = (
    'use_dora',
    'lora_bias',
    'fan_in_fan_out',
    'modules_to_save',
    'layer_replication',
    'target_parameters',
    'trainable_token_indices',
    'alora_invocation_tokens',
    'use_qalora',
    'use_bdlora',
    'arrow_config',
    'megatron_config',
    'monteclora_config',
    'velora_config',
)


@dataclass(eq=False)
class AdapterState:
    """One low-rank update by itself: delta = scaling * B A.

    Attributes:
        A: (rank, in).
        B: (out, rank).
        scaling: Factor of the product.
        kernel: Height and width of a convolution's kernel, with ``in`` counting its places;
            ``None`` for a linear layer.
    """

    A: Tensor
    B: Tensor
    scaling: float
    kernel: tuple[int, int] | None = None

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.A.shape[0]

    def delta(self) -> Tensor:
        """The update, (out, in)."""
        return self.scaling * (self.B @ self.A)


def adapter_state(adapters: Mapping[str, LowRankLayer]) -> dict[str, AdapterState]:
    """Copy the adapters' matrices as they are now.

    Args:
        adapters: Path -> adapter.

    Returns:
        Path -> detached copies, on the device of the adapter.
    """
    return {
        name: AdapterState(
            layer.lora_A.detach().clone(),
            layer.lora_B.detach().clone(),
            layer.scaling,
            _kernel_of(layer),
        )
        for name, layer in adapters.items()
    }


def _kernel_of(layer: nn.Module) -> tuple[int, int] | None:
    return tuple(layer.kernel_size) if isinstance(layer, nn.Conv2d) else None


def _check(name: str, state: AdapterState) -> None:
    a, b = state.A, state.B
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1:
        raise ValueError(
            f"adapter '{name}': A is {tuple(a.shape)} and B is {tuple(b.shape)}, expected (rank, "
            'in) and (out, rank) with one rank of at least 1'
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(
            f"adapter '{name}': A is {a.dtype} and B is {b.dtype}, expected floating point numbers"
        )


# ---- saving --------------------------------------------------------------------------------------


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def _config(state: Mapping[str, AdapterState], base: str) -> dict[str, Any]:
    """The LoRA config of peft for these layers.

    peft reads a text in ``target_modules`` as a regex for whole paths, whereas entries of a list
    also match as suffixes of a path. Keys of the patterns are regexes that match suffixes; the
    caret ties them to the whole path.
    """
    ranks = Counter(entry.rank for entry in state.values())
    alphas = Counter(_plain(entry.scaling * entry.rank) for entry in state.values())
    rank = ranks.most_common(1)[0][0] if ranks else 1
    alpha = alphas.most_common(1)[0][0] if alphas else 1
    rank_pattern, alpha_pattern = {}, {}
    for name, entry in state.items():
        key = f'^{re.escape(name)}'
        if entry.rank != rank:
            rank_pattern[key] = entry.rank
        if _plain(entry.scaling * entry.rank) != alpha:
            alpha_pattern[key] = _plain(entry.scaling * entry.rank)
    return {
        'peft_type': 'LORA',
        'task_type': None,
        'base_model_name_or_path': base,
        'inference_mode': True,
        'r': rank,
        'lora_alpha': alpha,
        'lora_dropout': 0.0,
        'bias': 'none',
        'fan_in_fan_out': False,
        'init_lora_weights': True,
        'use_rslora': False,
        'use_dora': False,
        'modules_to_save': None,
        'target_modules': '(?:' + '|'.join(map(re.escape, state)) + ')' if state else [],
        'rank_pattern': rank_pattern,
        'alpha_pattern': alpha_pattern,
    }


def save_adapters(
    folder: str | os.PathLike,
    state: Mapping[str, AdapterState],
    base: str,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write adapters as a folder that ``peft`` (0.15 or newer) loads onto the plain model.

    The folder appears whole or not at all: everything is written and synced in a hidden sibling,
    which is then renamed. An older adapter folder of that name is moved aside
    (``<folder>.previous``) until the new one stands; :func:`load_adapters` reads it if a kill fell
    between the two renames.

    Beware of dilated convolutions: peft leaves the dilation out when it applies an adapter.

    An empty ``state`` (every group was pruned) is saved and loaded like any other here. peft has no
    word for an adapter without layers: ``PeftModel.from_pretrained`` refuses such a folder.

    Args:
        folder: Where to; its parents are made. An existing folder is replaced if it holds nothing
            but adapter files.
        state: Path -> matrices. Ranks and scalings may differ between layers.
        base: Name or path of the base checkpoint, written to ``base_model_name_or_path``.
        extra: Written to ``mmforget.json``; plain JSON values only. None writes no such file.

    Raises:
        ValueError: Matrices do not fit each other, or ``extra`` is not JSON.
        FileExistsError: ``folder`` is a file, or a folder with other content.
    """
    folder = Path(folder).absolute()
    tensors = {}
    for name, entry in state.items():
        _check(name, entry)
        for matrix, tensor in zip('AB', _as_peft(entry), strict=True):
            # clone: tensors that share memory are refused by safetensors
            tensors[f'{_PREFIX}{name}.lora_{matrix}.weight'] = (
                tensor.detach().cpu().contiguous().clone()
            )
    files = {
        CONFIG_FILE: json.dumps(_config(state, base), indent=2).encode(),
        WEIGHTS_FILE: to_bytes(tensors, metadata={'format': 'pt'}),
    }
    if extra is not None:
        try:
            files[EXTRA_FILE] = json.dumps(dict(extra), indent=2, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'extra={extra!r} cannot be written as JSON ({error}): use texts, finite numbers, '
                'booleans, None, lists and dicts with text keys'
            ) from None
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}')
    try:
        fresh.mkdir()
        for name, content in files.items():
            with open(fresh / name, 'wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(fresh)
        _swap_in(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _as_peft(state: AdapterState) -> tuple[Tensor, Tensor]:
    """A and B in the shapes that peft has: as convolutions, for a convolution."""
    if state.kernel is None:
        return state.A, state.B
    return state.A.unflatten(1, (-1, *state.kernel)), state.B[:, :, None, None]


def _from_peft(name: str, lora_A: Tensor, lora_B: Tensor, scaling: float) -> AdapterState:
    """The other way round."""
    if lora_A.dim() != 4:
        return AdapterState(lora_A, lora_B, scaling)
    if tuple(lora_B.shape[2:]) != (1, 1):
        raise ValueError(
            f"adapter '{name}': A is {tuple(lora_A.shape)} and B is {tuple(lora_B.shape)}, "
            'expected B to be (out, rank, 1, 1) where A is (rank, channels, height, width)'
        )
    kernel = tuple(lora_A.shape[2:])
    return AdapterState(lora_A.flatten(1), lora_B[:, :, 0, 0], scaling, kernel)


def _check_replaceable(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise FileExistsError(
            f"'{folder}' exists and is no plain folder: choose another path for the adapters"
        )
    known = {CONFIG_FILE, WEIGHTS_FILE, EXTRA_FILE, 'README.md'}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in known)
    if others:
        raise FileExistsError(
            f"'{folder}' holds other things than an adapter ({_shorten(others, 5)}) and will not "
            'be replaced: choose another path, or move them away'
        )


def _backup_of(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.previous')


def _swap_in(fresh: Path, folder: Path) -> None:
    backup = _backup_of(folder)
    if folder.exists():
        _check_replaceable(backup)
        shutil.rmtree(backup, ignore_errors=True)
        os.rename(folder, backup)
        try:
            os.rename(fresh, folder)
        except BaseException:
            os.rename(backup, folder)
            raise
    else:
        os.rename(fresh, folder)
    _sync(folder.parent)
    if backup.is_dir() and (backup / CONFIG_FILE).is_file():
        shutil.rmtree(backup, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the names inside a folder durable (a folder cannot be opened for that on Windows)."""
    if os.name != 'posix':
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- loading -------------------------------------------------------------------------------------


def _settle(folder: str | os.PathLike) -> Path:
    """The folder to read: the one named, or the older one that a killed save moved aside."""
    folder = Path(folder).absolute()
    backup = _backup_of(folder)
    if not folder.exists() and (backup / CONFIG_FILE).is_file():
        warnings.warn(
            f"'{folder}' is missing but '{backup}' is there: a save was cut off. Reading the older "
            'adapters.',
            stacklevel=3,
        )
        return backup
    return folder


def load_adapters(folder: str | os.PathLike) -> dict[str, AdapterState]:
    """Read an adapter folder, written by :func:`save_adapters` or by peft.

    Args:
        folder: The folder.

    Returns:
        Path -> matrices on the CPU, in the order of the file.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, the config asks for something that is no plain low-rank
            update (the message names the field), or shapes do not fit the config.
    """
    folder = _settle(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"'{folder / name}' is missing: expected an adapter folder with {CONFIG_FILE} and "
                f'{WEIGHTS_FILE} (pickled adapter_model.bin files are not read; let peft save them '
                'as safetensors)'
            )
    config = _read_json(folder / CONFIG_FILE)
    _check_config(config, folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(
            f"'{folder / WEIGHTS_FILE}' is no valid safetensors file: {error}"
        ) from error

    pairs: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(
                f"'{folder / WEIGHTS_FILE}': unknown tensor '{key}', expected "
                f"'{_PREFIX}<path>.lora_A.weight' and the same with lora_B"
            )
        pairs.setdefault(match['name'], {})[match['matrix']] = tensors[key]
    state = {}
    for name, pair in pairs.items():
        if len(pair) != 2:
            lost = 'B' if 'A' in pair else 'A'
            raise ValueError(f"'{folder / WEIGHTS_FILE}': adapter '{name}' has no lora_{lost}")
        rank = _look_up(config.get('rank_pattern'), name, config['r'])
        alpha = _look_up(config.get('alpha_pattern'), name, config.get('lora_alpha', 8))
        root = rank**0.5 if config.get('use_rslora') else rank
        entry = _from_peft(name, pair['A'], pair['B'], float(alpha) / root)
        _check(name, entry)
        if entry.rank != rank:
            raise ValueError(
                f"'{folder}': adapter '{name}' has rank {entry.rank}, but r and rank_pattern in "
                f'{CONFIG_FILE} say {rank}. The two files do not belong together.'
            )
        state[name] = entry
    return state


def load_extra(folder: str | os.PathLike) -> dict[str, Any]:
    """Read ``mmforget.json`` of an adapter folder; empty when it has none."""
    path = _settle(folder) / EXTRA_FILE
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{path}' is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds a {type(content).__name__}, expected a JSON object")
    return content


def _check_config(config: dict[str, Any], folder: Path) -> None:
    where = f"'{folder / CONFIG_FILE}'"
    if config.get('peft_type') != 'LORA':
        raise ValueError(f"{where}: peft_type={config.get('peft_type')!r}, only 'LORA' can be read")
    if config.get('bias', 'none') != 'none':
        raise ValueError(
            f"{where}: bias={config['bias']!r} is not supported, expected 'none'; train without "
            'it, or let peft merge the adapter'
        )
    for field in _UNSUPPORTED:
        if config.get(field):
            raise ValueError(
                f'{where}: {field}={config[field]!r} is not supported, only plain low-rank updates '
                'are; let peft merge the adapter into its model'
            )
    r = config.get('r')
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise ValueError(f'{where}: r={r!r}, expected a whole number of at least 1')


def _look_up(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The rule of peft: the first pattern that matches the path, or its end from a dot on."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf'(.*\.)?({pattern})$', name):
            return value
    return default


# ---- arithmetic ----------------------------------------------------------------------------------


def concatenate(states: Sequence[Mapping[str, AdapterState]]) -> dict[str, AdapterState]:
    """Join the adapters of several tasks into one whose update is the sum of theirs.

    Ranks add up: [B1 B2] [A1; A2] = B1 A1 + B2 A2. Where scalings differ they are absorbed into B.

    Args:
        states: One mapping per task. A layer may be missing in some.

    Returns:
        Path -> joined matrices, in order of first appearance.

    Raises:
        ValueError: The sides of a layer's updates differ between tasks.
    """
    gathered: dict[str, list[AdapterState]] = {}
    for state in states:
        for name, entry in state.items():
            _check(name, entry)
            gathered.setdefault(name, []).append(entry)
    joined = {}
    for name, entries in gathered.items():
        shapes = {(entry.B.shape[0], entry.A.shape[1], entry.kernel) for entry in entries}
        if len(shapes) > 1:
            raise ValueError(
                f"adapter '{name}' has updates of different shapes (out, in, kernel): "
                f'{sorted(shapes, key=str)}. '
                'They belong to different base models.'
            )
        scalings = {entry.scaling for entry in entries}
        same = len(scalings) == 1
        joined[name] = AdapterState(
            torch.cat([entry.A for entry in entries]),
            torch.cat([entry.B if same else entry.scaling * entry.B for entry in entries], dim=1),
            scalings.pop() if same else 1.0,
            entries[0].kernel,
        )
    return joined


@torch.no_grad()
def apply_adapters(model: nn.Module, state: Mapping[str, AdapterState]) -> None:
    """Add the updates to the weights of a plain model, by the same bits as a merge of the adapters
    would.

    Args:
        model: Changed in place. The named modules must be linear layers or convolutions
            without an adapter.
        state: Path -> matrices.

    Raises:
        ValueError: A name is missing in the model or is no such layer, a shape does not fit, or a
            weight is tied to another module. Nothing is changed then.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    layers: dict[str, nn.Module] = {}
    for name, entry in state.items():
        _check(name, entry)
        layer = modules.get(name)
        if layer is None:
            known = [n for n, m in modules.items() if can_adapt(m)]
            raise ValueError(
                f"the model has no module '{name}', which the adapters name: load the model that "
                f'they were trained on. Layers of this model: {_shorten(known)}.'
            )
        if isinstance(layer, LowRankLayer):
            raise ValueError(
                f"'{name}' carries an adapter: remove it (folded or not) before applying another"
            )
        if not can_adapt(layer):
            raise ValueError(
                f"'{name}' is a {type(layer).__name__}, expected an nn.Linear, or an nn.Conv2d "
                'without groups'
            )
        shape = (entry.B.shape[0], entry.A.shape[1])
        if (matrix_sides(layer), _kernel_of(layer)) != (shape, entry.kernel):
            of_kernel = '' if entry.kernel is None else f' with a kernel of {entry.kernel}'
            raise ValueError(
                f"the weight of '{name}' is {tuple(layer.weight.shape)}, but its update is "
                f'{shape}{of_kernel}: load the model that the adapters were trained on'
            )
        layers[name] = layer
    check_untied(model, layers)
    for name, entry in state.items():
        if entry.B.any():
            weight = layers[name].weight
            weight.copy_(updated_weight(weight, entry.A, entry.B, entry.scaling))
