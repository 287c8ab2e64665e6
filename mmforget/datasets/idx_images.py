"""MNIST and its relatives: images and labels in IDX files."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from mmforget.datasets.garments_scenes import CLASSES as GARMENTS
from mmforget.datasets.recognition import RecognitionDataset
from mmforget.registry import DATASETS

_PREFIXES = {'train': 'train', 'test': 't10k'}
_DIGITS = tuple('0123456789')


@DATASETS.register_module()
class IdxImages(RecognitionDataset):
    """The four files of MNIST, Fashion-MNIST and others of their form, gzipped or not.

    Args:
        data_root: The folder of the files.
        split: ``'train'`` or ``'test'``.
        classes: Names in label order; by default the digits.
        **kwargs: Those of MMEngine's BaseDataset.

    Raises:
        ValueError: The split is unknown, or a file is no IDX file of unsigned bytes.
        FileNotFoundError: A file is missing.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        classes: tuple[str, ...] = _DIGITS,
        **kwargs: Any,
    ) -> None:
        if split not in _PREFIXES:
            raise ValueError(f"split is {split!r}; expected 'train' or 'test'.")
        self._folder, self._prefix = Path(data_root), _PREFIXES[split]
        super().__init__(metainfo={'classes': tuple(classes)}, **kwargs)

    def load_images(self) -> list[dict[str, Any]]:
        """All images with three equal channels."""
        pixels = _read(self._folder / f'{self._prefix}-images-idx3-ubyte')
        labels = _read(self._folder / f'{self._prefix}-labels-idx1-ubyte')
        return as_images(pixels, labels)


@DATASETS.register_module()
class FashionMNIST(IdxImages):
    """Fashion-MNIST; Debian's package ``dataset-fashion-mnist`` has its files.

    Args:
        data_root: The folder of the files.
        split: ``'train'`` or ``'test'``.
        **kwargs: Those of MMEngine's BaseDataset.
    """

    def __init__(
        self,
        data_root: str = '/usr/share/datasets/fashion-mnist',
        split: str = 'train',
        **kwargs: Any,
    ) -> None:
        super().__init__(data_root, split, GARMENTS, **kwargs)


def as_images(pixels: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Images of one channel, (N, H, W), as those of three, with their labels (N,)."""
    return [
        {'img': np.repeat(image[..., None], 3, axis=2), 'gt_label': int(label)}
        for image, label in zip(pixels, labels, strict=True)
    ]


def _read(path: Path) -> np.ndarray:
    zipped = path.with_name(f'{path.name}.gz')
    if zipped.is_file():
        raw = gzip.decompress(zipped.read_bytes())
    elif path.is_file():
        raw = path.read_bytes()
    else:
        raise FileNotFoundError(
            f'{zipped} does not exist, nor does {path.name} beside it; expected the files of '
            'MNIST or Fashion-MNIST in data_root.'
        )
    if len(raw) < 4 or raw[:3] != b'\x00\x00\x08':
        raise ValueError(f'{path} is no IDX file of unsigned bytes; fetch it again.')
    sides = raw[3]
    shape = np.frombuffer(raw, '>i4', sides, 4)
    pixels = np.frombuffer(raw, np.uint8, offset=4 + 4 * sides)
    if pixels.size != shape.prod():
        raise ValueError(
            f'{path} holds {pixels.size} values, but its head says {tuple(shape)}; it was cut off. '
            'Fetch it again.'
        )
    return pixels.reshape(shape)
