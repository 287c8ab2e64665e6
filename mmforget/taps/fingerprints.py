"""Tells images and weights by their content."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def digests(
    images: Iterable[Tensor], shapes: Sequence[tuple[int, ...]] | None = None
) -> list[bytes]:
    """One digest per preprocessed image (3, H, W), the padded shape included.

    Args:
        images: The images, or a batch of them.
        shapes: For each image the shape (height, width) without padding. Padding is zero, as
            pixels may be, and what a transformer gives depends on where it begins.
    """
    images = list(images)
    shapes = [()] * len(images) if shapes is None else shapes
    return [
        _digest(image.detach(), f'{tuple(image.shape)}{tuple(shape)}', 16)
        for image, shape in zip(images, shapes, strict=True)
    ]


class Fingerprints:
    """Fingerprints of weights.

    Contents are read when a tensor is seen for the first time, and again when its address or its
    version has changed. Writes through ``parameter.data`` change neither: make a new instance
    after them.
    """

    def __init__(self) -> None:
        # The aliases keep the memory of what was read, so that no other tensor gets its address.
        self._seen: dict[int, tuple[Tensor, Tensor, int, bytes]] = {}

    def of(self, tensors: Iterable[Tensor]) -> bytes:
        """One fingerprint of all tensors, in their order."""
        whole = hashlib.blake2b(digest_size=32)
        for tensor in tensors:
            whole.update(self._of_one(tensor))
        return whole.digest()

    def _of_one(self, tensor: Tensor) -> bytes:
        seen = self._seen.get(id(tensor))
        if seen is not None:
            owner, alias, version, digest = seen
            still_there = owner is tensor and alias.data_ptr() == tensor.data_ptr()
            if still_there and version == tensor._version:
                return digest
        digest = _digest(tensor.detach(), f'{tensor.dtype}{tuple(tensor.shape)}', 32)
        self._seen[id(tensor)] = (tensor, tensor.detach(), tensor._version, digest)
        return digest


def _digest(tensor: Tensor, kind: str, size: int) -> bytes:
    digest = hashlib.blake2b(kind.encode(), digest_size=size)
    digest.update(_content(tensor.cpu()))
    return digest.digest()


def _content(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
