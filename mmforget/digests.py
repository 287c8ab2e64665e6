"""Tells tensors by their content."""

import hashlib

import torch
from torch import Tensor

# Metainfo key of a sample: digest of the image as the pipeline made it, before preprocessing.
PIXELS = 'pixel_digest'


def content_digest(tensor: Tensor, kind: str = '', size: int = 16) -> bytes:
    """A digest of a tensor's content, shape and type.

    Args:
        tensor: Read where it is, in host memory if it is not there.
        kind: Told apart beside the content.
        size: Bytes of the digest.
    """
    about = f'{tensor.dtype}{tuple(tensor.shape)}{kind}'
    digest = hashlib.blake2b(about.encode(), digest_size=size)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy())
    return digest.digest()
