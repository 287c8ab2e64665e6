"""The embedded garments by themselves: recognition without any download."""

from typing import Any

import numpy as np

from mmforget.datasets.garments_scenes import CLASSES, garment_sprites
from mmforget.datasets.idx_images import as_images
from mmforget.datasets.recognition import RecognitionDataset
from mmforget.registry import DATASETS


@DATASETS.register_module()
class GarmentSprites(RecognitionDataset):
    """The 28×28 photographs of Fashion-MNIST that the Garments scenes are made of.

    400 of each class in ``train``, 50 in ``val``, 100 in ``test``.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``.
        **kwargs: Those of MMEngine's BaseDataset.

    Raises:
        ValueError: The split is unknown.
    """

    METAINFO = {'classes': CLASSES}

    def __init__(self, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'val', 'test'):
            raise ValueError(f"split is {split!r}; expected 'train', 'val' or 'test'.")
        self.split = split
        super().__init__(**kwargs)

    def load_images(self) -> list[dict[str, Any]]:
        """All sprites of the split."""
        sprites = garment_sprites(self.split)  # (classes, images, 28, 28)
        labels = np.arange(len(sprites)).repeat(sprites.shape[1])
        return as_images(sprites.reshape(-1, *sprites.shape[2:]), labels)
