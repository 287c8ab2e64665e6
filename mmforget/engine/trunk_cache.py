"""The trunk's cache as the loop's arguments describe it."""

import tempfile
from pathlib import Path

from mmforget.taps import TrunkCache


def build_trunk_cache(
    memory_mb: int, disk_mb: int, folder: str | None, dtype: str, work_dir: str
) -> TrunkCache | None:
    """Checks the arguments; writes nothing until memory is full.

    Args:
        memory_mb: ``trunk_cache_mb``.
        disk_mb: ``trunk_cache_disk_mb``.
        folder: ``trunk_cache_dir``.
        dtype: ``trunk_cache_dtype``.
        work_dir: Where the files are without ``folder``.

    Returns:
        ``None`` where nothing is to be remembered.

    Raises:
        ValueError: A number is negative or no whole one, or the type is unknown.
        OSError: ``folder`` cannot be written.
    """
    for name, value in (('trunk_cache_mb', memory_mb), ('trunk_cache_disk_mb', disk_mb)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f'{name} is {value!r}; expected a whole number of MB, 0 for none.')
    if dtype not in ('float32', 'bfloat16'):
        raise ValueError(f"trunk_cache_dtype is {dtype!r}; expected 'float32' or 'bfloat16'.")
    if disk_mb and folder is not None:
        _check_folder(folder)
    if not memory_mb and not disk_mb:
        return None
    return TrunkCache(
        memory_mb * 2**20,
        disk_mb * 2**20,
        folder=folder or work_dir,
        # A work dir belongs to one run; a given folder may serve several.
        alone=folder is None,
        dtype=dtype,
    )


def _check_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f'trunk_cache_dir is {folder!r}, which cannot be written: {error}. Give a folder with '
            'write permission, or leave it out: then the files are in the work dir.'
        ) from error
