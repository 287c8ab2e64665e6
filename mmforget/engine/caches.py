"""The caches of trunk and images as the loop's arguments describe them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmforget.datasets.item_memory import ItemMemory
from mmforget.structures import StreamSampling
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
    _check_megabytes('trunk_cache_mb', memory_mb)
    _check_megabytes('trunk_cache_disk_mb', disk_mb)
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


def build_image_cache(
    memory_mb: int, samplings: Mapping[str, StreamSampling], dataloader: Mapping[str, Any]
) -> ItemMemory | None:
    """Checks the argument.

    Args:
        memory_mb: ``image_cache_mb``.
        samplings: Stream -> how it is drawn.
        dataloader: The config of the training data.

    Returns:
        ``None`` where nothing is to be remembered.

    Raises:
        ValueError: The number is negative or no whole one, or no image would be found again.
    """
    _check_megabytes('image_cache_mb', memory_mb)
    if not memory_mb:
        return None
    if not any(sampling.augmentations for sampling in samplings.values()):
        raise ValueError(
            f'image_cache_mb is {memory_mb}, but no stream has augmentations: every time that an '
            'image is seen it is drawn anew. Give a stream augmentations=K, or leave '
            'image_cache_mb out.'
        )
    if dataloader.get('num_workers', 0):
        raise ValueError(
            f'image_cache_mb is {memory_mb} and train_dataloader.num_workers '
            f'{dataloader["num_workers"]}: each loading process would keep images of its own. Set '
            'num_workers=0 and persistent_workers=False, or leave image_cache_mb out.'
        )
    return ItemMemory(memory_mb * 2**20)


def _check_megabytes(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f'{name} is {value!r}; expected a whole number of MB, 0 for none.')


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
