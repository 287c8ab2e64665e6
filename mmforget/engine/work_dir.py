"""A work dir that cannot be written, or that holds another run, is refused before any work."""

import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmforget.engine.checkpoints import RESUME_FILE
from mmforget.engine.results import FILE_NAME, read_results

_FILES = (RESUME_FILE, FILE_NAME, 'last_checkpoint')


def check_writable(folder: str | Path) -> None:
    """Checks that what a run writes can be written; makes the folder if it is not there.

    Args:
        folder: The work dir.

    Raises:
        OSError: The folder or something in it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / 'adapters'):
            if place == folder or place.exists():
                with tempfile.TemporaryFile(dir=place):
                    pass
        for name in _FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f'{name} is a folder')
    except OSError as error:
        raise OSError(
            f'The work dir {str(folder)!r} cannot be written: {error}. Expected a folder with '
            'write permission and free space, in which adapters/ is a folder and '
            f'{", ".join(_FILES)} are files or absent. Give another one with --work-dir or '
            'work_dir in the config.'
        ) from error


def other_run(folder: str | Path, identity: Mapping[str, Any]) -> str | None:
    """Whether a run that is started anew finds its own kind of run in the work dir.

    Args:
        folder: The work dir.
        identity: What makes the run the one it is; the key ``tasks`` are its lists of classes.

    Returns:
        What is there of an earlier run with the same identity, for a warning; ``None`` if nothing.

    Raises:
        FileExistsError: Another run is there, which would be overwritten.
    """
    folder = Path(folder)
    if (folder / RESUME_FILE).is_file():
        state = _read_state(folder / RESUME_FILE)
        if state is None:
            raise _refusal(folder, f'a {RESUME_FILE} that ContinualForgettingLoop has not written')
        for key, value in identity.items():
            there = state.get('identity', {}).get(key)
            if there != value:
                raise _refusal(
                    folder, f'another run, with {key}={there!r}, while the config says {value!r}'
                )
        return f'{RESUME_FILE} of the same scenario with {len(state["rows"])} finished tasks'
    if (folder / FILE_NAME).is_file():
        try:
            done = [row['classes'] for row in read_results(folder / FILE_NAME)['tasks']]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _refusal(folder, f'a {FILE_NAME} that mmforget has not written') from None
        if done != identity['tasks'][: len(done)]:
            raise _refusal(
                folder,
                f'the results of another run, with the tasks {done}, while the config says '
                f'{identity["tasks"]}',
            )
        return f'{FILE_NAME} of the same tasks, {len(done)} of them finished'
    if (folder / 'last_checkpoint').is_file():
        last = (folder / 'last_checkpoint').read_text().strip()
        if Path(last).name != RESUME_FILE:
            raise _refusal(folder, f'another training, whose last_checkpoint is {last!r}')
    return None


def _read_state(path: Path) -> dict[str, Any] | None:
    """The loop's state in a resume checkpoint; the tensors are left on the disk."""
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        return checkpoint['meta']['mmforget']
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        return None


def _refusal(folder: Path, found: str) -> FileExistsError:
    return FileExistsError(
        f'The work dir {str(folder)!r} holds {found}. Starting anew would overwrite it; expected '
        'an empty work dir or one of the same scenario. Give another one with --work-dir or '
        'work_dir in the config, go on with the run that is there (--resume with its config, which '
        'is kept in <time>/vis_data/config.py), or remove the folder.'
    )
