"""Tells tensors by their content."""

import hashlib

import torch
from torch import Tensor

# Metainfo key of a sample: digest of the image as the pipeline made it, before preprocessing.
PIXELS = 'pixel_digest'
# Attribute of a tensor: which tensor it was, its version and memory then, and its digest.
_KNOWN = '_mmforget_digest'


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


def image_digest(image: Tensor) -> bytes:
    """The digest of an image, read again only if it was written to.

    Args:
        image: As the pipeline made it. Writes that do not pass through it go unnoticed: through
            ``image.data``, NumPy's view, or another tensor made of its memory.
    """
    if image.is_inference():  # Such tensors have no version.
        return content_digest(image)
    # A copy takes the attribute along.
    state = (id(image), image._version, image.data_ptr())
    known = getattr(image, _KNOWN, None)
    if known is None or known[0] != state:
        known = state, content_digest(image)
        setattr(image, _KNOWN, known)
    return known[1]
