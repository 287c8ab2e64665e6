"""Data: the embedded benchmark, recognition, and the streams of a forgetting task."""

from mmforget.datasets.garment_sprites import GarmentSprites
from mmforget.datasets.garments import GarmentsDataset
from mmforget.datasets.idx_images import FashionMNIST, IdxImages
from mmforget.datasets.image_folder import ImageFolder
from mmforget.datasets.pack_recognition import PackRecognition

__all__ = [
    'FashionMNIST',
    'GarmentSprites',
    'GarmentsDataset',
    'IdxImages',
    'ImageFolder',
    'PackRecognition',
]
