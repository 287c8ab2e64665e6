"""Remembers what frozen modules give for an image, so that it is computed once."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class TrunkCache:
    """Outputs of frozen modules by image content, bounded in bytes, oldest out first.

    An image is known by the digest of its preprocessed, padded pixels: an augmented image is
    another image, and the same image in a batch padded otherwise is another one, too. So a hit
    is right whatever the pipeline draws; with random crops there are merely few hits.

    Args:
        max_bytes: Upper bound of what is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise ValueError(f'A trunk cache got max_bytes={max_bytes!r}; expected more than 0.')
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[tuple[str, bytes], tuple[Tensor, ...]] = OrderedDict()
        self._weights: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def check_weights(self, stage: str, modules: Iterable[nn.Module]) -> None:
        """Forgets a stage when a weight below it has changed since it was filled."""
        token = hash(
            tuple(
                (tensor.data_ptr(), tensor._version)
                for module in modules
                for tensor in (*module.parameters(), *module.buffers())
            )
        )
        if self._weights.get(stage) != token:
            for key in [k for k in self._entries if k[0] == stage]:
                self.bytes -= _size(self._entries.pop(key))
            self._weights[stage] = token

    def get(self, stage: str, digest: bytes) -> tuple[Tensor, ...] | None:
        """What the stage gave for this image, or ``None``."""
        key = (stage, digest)
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, stage: str, digest: bytes, tensors: Sequence[Tensor]) -> None:
        """Keeps a stage's outputs for one image, each (1, ...)."""
        self._entries[stage, digest] = tuple(tensors)
        self.bytes += _size(tensors)
        while self.bytes > self.max_bytes and len(self._entries) > 1:
            self.bytes -= _size(self._entries.popitem(last=False)[1])


def digests(inputs: Tensor) -> list[bytes]:
    """One digest per image of a preprocessed batch (B, 3, H, W), the padded shape included."""
    return [
        hashlib.blake2b(
            image.detach().cpu().contiguous().view(torch.uint8).numpy().data,
            digest_size=16,
            salt=f'{tuple(image.shape)}'.encode()[:16],
        ).digest()
        for image in inputs
    ]


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
