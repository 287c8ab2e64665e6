"""Tells images and weights by their content."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from torch import Tensor

from mmforget.digests import PIXELS, content_digest


def image_keys(images: Sequence[Tensor], samples: Sequence[Any]) -> list[bytes]:
    """What each preprocessed image is known by: its pixels, and its shape with padding and without.

    Padding is zero, as pixels may be, and what a transformer gives depends on where it begins.
    Where its sample tells of the pixels that it was made of, they need not be read again.

    Args:
        images: (3, H, W) each.
        samples: Their data samples.
    """
    keys = []
    for image, sample in zip(images, samples, strict=True):
        pixels = sample.get(PIXELS)
        shapes = f'{tuple(image.shape)}{tuple(sample.img_shape)}'
        keys.append((content_digest(image) if pixels is None else pixels) + shapes.encode())
    return keys


class Fingerprints:
    """Fingerprints of weights.

    Contents are read when a tensor is seen for the first time, and again when its address or its
    version has changed. Writes through ``parameter.data`` change neither: make a new instance
    after them.
    """

    def __init__(self) -> None:
        # The aliases keep the memory of what was read, so that no other tensor gets its address.
        self._seen: dict[int, tuple[Tensor, Tensor, int, bytes]] = {}
        self._whole: dict[Hashable, tuple[list[tuple[int, int, int]], bytes]] = {}

    def of(self, tensors: Iterable[Tensor], about: Hashable = None) -> bytes:
        """One fingerprint of all tensors, in their order.

        Args:
            tensors: The tensors.
            about: What they are asked for; the same question is answered fast while nothing moves.
        """
        tensors = list(tensors)
        state = [(id(tensor), tensor._version, tensor.data_ptr()) for tensor in tensors]
        known = self._whole.get(about)
        if known is not None and known[0] == state:
            return known[1]
        whole = hashlib.blake2b(digest_size=32)
        for tensor in tensors:
            whole.update(self._of_one(tensor))
        self._whole[about] = state, whole.digest()
        return self._whole[about][1]

    def _of_one(self, tensor: Tensor) -> bytes:
        seen = self._seen.get(id(tensor))
        if seen is not None:
            owner, alias, version, digest = seen
            still_there = owner is tensor and alias.data_ptr() == tensor.data_ptr()
            if still_there and version == tensor._version:
                return digest
        digest = content_digest(tensor, size=32)
        self._seen[id(tensor)] = (tensor, tensor.detach(), tensor._version, digest)
        return digest
