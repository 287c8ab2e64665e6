"""Garments, the embedded benchmark, as a CocoDataset that makes its files on first use."""

from mmdet.datasets import CocoDataset
from mmengine.dist import is_main_process

from mmforget.datasets.garments_scenes import CLASSES, prepare_garments
from mmforget.registry import DATASETS


@DATASETS.register_module()
class GarmentsDataset(CocoDataset):
    """Ten classes of garments, 4,000 train, 300 val and 1,000 test scenes of 160×160.

    The objects are real photographs (Fashion-MNIST), the scenes are composed.

    Args:
        split: ``'train'``, ``'val'`` (demos and tuning) or ``'test'`` (published tables).
        data_root: Where the files are, or are made when they are missing.
        **kwargs: As CocoDataset. ``ann_file`` and ``data_prefix`` follow from the split.

    Raises:
        ValueError: The split's name is unknown.
    """

    METAINFO = {
        'classes': CLASSES,
        'palette': [
            (230, 25, 75),
            (60, 180, 75),
            (255, 225, 25),
            (0, 130, 200),
            (245, 130, 48),
            (145, 30, 180),
            (70, 240, 240),
            (240, 50, 230),
            (210, 245, 60),
            (250, 190, 212),
        ],
    }

    def __init__(self, split: str, data_root: str = 'data/garments', **kwargs) -> None:
        # Every rank may call this: a lock lets one work and the others wait.
        prepare_garments(data_root, (split,), progress=is_main_process())
        kwargs.setdefault('ann_file', f'annotations/{split}.json')
        kwargs.setdefault('data_prefix', {'img': f'{split}/'})
        super().__init__(data_root=data_root, **kwargs)
