"""Remembers what frozen modules give for an image, so that it is computed once."""

import logging
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FOLDER_PREFIX = 'trunk_cache_'
_DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}
# Marks a tensor that was float32 before it was rounded.
_ROUNDED = '@float32'


class Priority(IntEnum):
    """What has to make room for what; lower ones go first."""

    BELOW = 0  # What lies below a cut, and is needed again only when the cut moves down.
    EVALUATION = 1
    TRAINING = 2


@dataclass(frozen=True)
class _Entry:
    """One image's outputs of one stage: in memory, or in a file."""

    size: int
    tensors: dict[str, Tensor] | None
    path: Path | None = None


class TrunkCache:
    """Outputs of frozen modules by stage, weights and image content, bounded in bytes.

    An image is known by its pixels and its padded shape: an augmented image is another image. So a
    hit is right whatever the pipeline draws; with random crops there are merely few hits. The
    weights below a stage are part of the key: when they have changed, what they gave is gone.

    Memory is filled first, then files, which are mapped into memory when they are read. Where
    neither has room, the oldest entries of the lowest priority leave.

    Args:
        max_bytes: Upper bound of what is kept in memory: that of the device where the detector is.
        max_disk_bytes: Upper bound of what is kept in files.
        folder: Where the temporary folder of the files is made, when the first one is written.
        alone: No other living cache has its files in ``folder``: what killed runs left there is
            removed.
        dtype: ``'bfloat16'`` keeps half of each float32 tensor's bits. What is computed anew is
            rounded alike, so that results do not depend on what was remembered.

    Attributes:
        bytes: Kept in memory now.
        disk_bytes: Kept in files now.
        images_at_once: How many small images of one padded shape go through the trunk together in
            training; ``None`` is decided by the batch. A run sets it once: float results depend on
            it, and a resumed run must not differ.
        looked_at: Digest of an image before preprocessing -> what it is known by, for images that
            were looked at ahead of their batch.

    Raises:
        ValueError: A bound or the dtype is not one of those expected.
    """

    def __init__(
        self,
        max_bytes: int,
        max_disk_bytes: int = 0,
        folder: str | Path | None = None,
        alone: bool = False,
        dtype: str = 'float32',
    ) -> None:
        if min(max_bytes, max_disk_bytes) < 0 or not max_bytes + max_disk_bytes:
            raise ValueError(
                f'A trunk cache got max_bytes={max_bytes!r} and max_disk_bytes={max_disk_bytes!r};'
                ' expected no negative number and at least one more than 0.'
            )
        if max_disk_bytes and folder is None:
            raise ValueError('A trunk cache with max_disk_bytes needs a folder for its files.')
        if dtype not in _DTYPES:
            raise ValueError(
                f'A trunk cache got dtype={dtype!r}; expected one of {", ".join(_DTYPES)}.'
            )
        self.max_bytes = max_bytes
        self.max_disk_bytes = max_disk_bytes
        self.bytes = 0
        self.disk_bytes = 0
        self.images_at_once: int | None = None
        self.looked_at: dict[bytes, bytes] = {}
        self._parent = None if folder is None else Path(folder)
        self._alone = alone
        self._folder: tempfile.TemporaryDirectory | None = None
        self._files = 0
        self._dtype = _DTYPES[dtype]
        self._entries: dict[Priority, OrderedDict[tuple[str, bytes], _Entry]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._weights: dict[str, bytes] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._entries.values())

    def set_weights(self, stage: str, fingerprint: bytes) -> None:
        """Says what the weights below a stage are now; forgets what others gave.

        Told by content, so that another detector with equal weights finds what the first one
        left.
        """
        known = self._weights.get(stage)
        if known == fingerprint:
            return
        self._weights[stage] = fingerprint
        if known is not None:
            self._changed.add(stage)
        for entries in self._entries.values():
            for key in [key for key in entries if key[0] == stage]:
                self._drop(entries, key)

    def has_changed(self, stage: str) -> bool:
        """Whether the weights below a stage were others before: they may change again."""
        return stage in self._changed

    def rounded(self, tensors: Mapping[str, Tensor], exact: Sequence[str] = ()) -> dict:
        """What is kept of the tensors: float32 as ``dtype``, but for those named in ``exact``."""
        return {
            f'{name}{_ROUNDED}' if lossy else name: tensor.to(self._dtype) if lossy else tensor
            for name, tensor in tensors.items()
            for lossy in [self._dtype and tensor.dtype == torch.float32 and name not in exact]
        }

    @staticmethod
    def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under their names and in their types, from what is kept of them."""
        return {
            name.removesuffix(_ROUNDED): tensor.float() if name.endswith(_ROUNDED) else tensor
            for name, tensor in tensors.items()
        }

    def knows(self, stage: str, digest: bytes) -> bool:
        """Whether a stage's outputs for this image are kept."""
        return any((stage, digest) in entries for entries in self._entries.values())

    def get(self, stage: str, digest: bytes) -> dict[str, Tensor] | None:
        """What is kept of a stage's outputs for this image, or ``None``."""
        key = (stage, digest)
        for entries in self._entries.values():
            entry = entries.get(key)
            if entry is None:
                continue
            entries.move_to_end(key)
            if entry.tensors is not None:
                return entry.tensors
            try:
                with safe_open(entry.path, framework='pt') as file:
                    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError):  # Somebody removed it: it is computed again.
                self._drop(entries, key)
        return None

    def put(
        self,
        stage: str,
        digest: bytes,
        tensors: Mapping[str, Tensor],
        priority: Priority = Priority.TRAINING,
    ) -> None:
        """Keeps a stage's outputs for one image, each (1, ...), if there is room.

        Args:
            stage: Name of the stage.
            digest: The image.
            tensors: What is to be kept, as ``rounded`` gives it; contiguous.
            priority: What it may replace: everything of a lower priority and, in training, the
                oldest of its own.
        """
        key = (stage, digest)
        for entries in self._entries.values():
            if key in entries:
                self._drop(entries, key)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if size > max(self.max_bytes, self.max_disk_bytes):
            return
        replaceable = [p for p in Priority if p < priority]
        if priority == Priority.TRAINING:
            replaceable.append(priority)
        while (entry := self._store(size, tensors)) is None:
            entries = next((self._entries[p] for p in replaceable if self._entries[p]), None)
            if entries is None:
                return
            self._drop(entries, next(iter(entries)))
        self._entries[priority][key] = entry

    def close(self) -> None:
        """Removes the files and forgets what was in them."""
        for entries in self._entries.values():
            for key in [key for key, entry in entries.items() if entry.path is not None]:
                self._drop(entries, key)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _store(self, size: int, tensors: Mapping[str, Tensor]) -> _Entry | None:
        """An entry where there is room for it now."""
        if self.bytes + size <= self.max_bytes:
            self.bytes += size
            return _Entry(size, dict(tensors))
        if self.disk_bytes + size > self.max_disk_bytes:
            return None
        path = self._write(tensors)
        if path is None:
            return None
        self.disk_bytes += size
        return _Entry(size, None, path)

    def _write(self, tensors: Mapping[str, Tensor]) -> Path | None:
        """A new file, whole or not at all."""
        unfinished = None
        try:
            if self._folder is None:
                self._parent.mkdir(parents=True, exist_ok=True)
                if self._alone:
                    _remove_left_folders(self._parent)
                self._folder = tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=self._parent)
            path = Path(self._folder.name) / f'{self._files}.safetensors'
            unfinished = path.with_suffix('.part')
            save_file(dict(tensors), unfinished)
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            if unfinished is not None:
                unfinished.unlink(missing_ok=True)
            self.max_disk_bytes = self.disk_bytes
            print_log(
                f'The trunk cache cannot write below {self._parent}: {error}. It goes on with '
                f'the {self.disk_bytes / 2**20:.0f} MB that are there. Make room, give another '
                'folder in trunk_cache_dir, or lower trunk_cache_disk_mb.',
                logger='current',
                level=logging.WARNING,
            )
            return None
        self._files += 1
        return path

    def _drop(self, entries: OrderedDict[tuple[str, bytes], _Entry], key: tuple[str, bytes]):
        entry = entries.pop(key)
        if entry.path is None:
            self.bytes -= entry.size
        else:
            self.disk_bytes -= entry.size
            entry.path.unlink(missing_ok=True)


def _remove_left_folders(folder: str | Path) -> None:
    """Removes the folders that caches of killed runs left in a folder."""
    for left in Path(folder).glob(f'{_FOLDER_PREFIX}*'):
        shutil.rmtree(left, ignore_errors=True)
