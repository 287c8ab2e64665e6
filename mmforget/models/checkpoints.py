"""The ``mmforget://`` scheme: weights that come with the package, or were converted for it."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

SCHEME = 'mmforget://'
_PACKAGED = Path(__file__).parent / 'data'
# What torch says of a file that is cut off, or of another kind of zip or pickle.
_BROKEN_FILE = ('PytorchStreamReader', 'EOF', 'corrupt', 'Ran out of input')
_CONVERTERS = {
    'mobilenetv2_imagenet': 'python tools/model_converters/mobilenetv2_imagenet.py',
}


def cache_folder() -> Path:
    """Where converted weights are kept: ``MMFORGET_CACHE`` or the user's cache folder."""
    folder = os.environ.get('MMFORGET_CACHE')
    if folder:
        return Path(folder)
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'mmforget'


def find_weights(name: str) -> Path:
    """The file behind ``mmforget://<name>``.

    Raises:
        FileNotFoundError: No such weights; the message names those there are and, where a
            converter makes the file, its command.
    """
    for folder in (_PACKAGED, cache_folder() / 'weights'):
        path = folder / f'{name}.safetensors'
        if path.is_file():
            return path
    if name in _CONVERTERS:
        raise FileNotFoundError(
            f'{SCHEME}{name} has not been made yet. Make it with: {_CONVERTERS[name]}'
        )
    known = sorted({p.stem for p in _PACKAGED.glob('*.safetensors')} | set(_CONVERTERS))
    raise FileNotFoundError(f'{SCHEME}{name} does not exist. There are: {", ".join(known)}.')


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def load_mmforget_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Loads a safetensors file as an MMEngine checkpoint; half precision becomes float32.

    Args:
        filename: ``mmforget://<name>``.
        map_location: As for ``torch.load``; a callable means CPU.

    Returns:
        ``{'state_dict': {...}, 'meta': {}}``.
    """
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    state = load_file(find_weights(filename.removeprefix(SCHEME)), device=str(device))
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
    return {'state_dict': state, 'meta': {}}


def _statistic(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``: a pickled HistoryBuffer names its own statistics through it."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed.')
    return getattr(owner, name)


def _mmengine_globals() -> list[Any]:
    """What the message hub of MMEngine's own checkpoints needs to be unpickled, and no more."""
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    needed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, (_statistic, 'builtins.getattr')]
    # numpy 1 and numpy 2 write different module names for the same functions.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        needed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    needed += [type(np.dtype(t)) for t in ('float64', 'float32', 'int64', 'int32', 'bool')]
    return needed


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_local_checkpoint(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Loads a local checkpoint with torch's check of unsafe content switched on.

    MMEngine 0.10 leaves the check to torch's default and then fails on its own files, because
    their message hub holds ``HistoryBuffer`` and numpy objects.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, or not a whole one.
        RuntimeError: The file holds objects that are not plain data.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{filename} can not be found.')
    if path.suffix == '.safetensors':
        try:
            return {'state_dict': load_file(path), 'meta': {}}
        except SafetensorError as error:
            raise _no_checkpoint(path, 'a safetensors file', error) from error
    with torch.serialization.safe_globals(_mmengine_globals()):
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except (EOFError, pickle.UnpicklingError, RuntimeError) as error:
            if not _may_be_pickled(path) or any(text in str(error) for text in _BROKEN_FILE):
                raise _no_checkpoint(path, 'a file that torch.save wrote', error) from error
            if not isinstance(error, pickle.UnpicklingError):
                raise
            raise RuntimeError(
                f'{filename} holds objects that are not plain data, which could run code when '
                'loaded, so mmforget does not load it. Load it once where you trust it and save '
                f"its 'state_dict' alone. Torch says: {str(error).splitlines()[0]}"
            ) from error


def _first_bytes(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(24)


def _may_be_pickled(path: Path) -> bool:
    """Whether the file begins as torch's archives (zip) or its older files (pickle) do."""
    return _first_bytes(path).startswith((b'PK', b'\x80'))


def _no_checkpoint(path: Path, expected: str, error: Exception) -> ValueError:
    return ValueError(
        f'{path} is no checkpoint, or not a whole one: it has {path.stat().st_size} bytes and '
        f'begins with {_first_bytes(path)!r}; expected {expected}. Fetch or copy it again (a web '
        "page or a Git LFS pointer may have been saved in the file's place). The loader says: "
        f'{str(error).partition(chr(10))[0] or type(error).__name__}'
    )
