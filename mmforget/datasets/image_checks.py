"""Missing image files are found before training, not when a batch asks for them."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset

from mmforget.datasets.stream_source import StreamSource


def check_stream_images(dataset: Any, images: Iterable[int]) -> None:
    """Checks that the image files of the streams are there; one look at each.

    Args:
        dataset: The built training data set.
        images: Image indices, as ``sample_images`` returns them.

    Raises:
        FileNotFoundError: A file is missing.
    """
    source = StreamSource(dataset)
    images = [image for image in images if _reads_files(source.pipeline(image))]
    _check(map(source.info, images), 'train_dataloader')


def check_validation_images(dataset: Any) -> None:
    """The same for all images of a validation set; one that is wrapped is left to MMDetection.

    Args:
        dataset: The built validation data set.

    Raises:
        FileNotFoundError: A file is missing.
    """
    if isinstance(dataset, BaseDataset) and _reads_files(dataset.pipeline):
        _check(map(dataset.get_data_info, range(len(dataset))), 'val_dataloader')


def _reads_files(pipeline: Any) -> bool:
    """Whether images come from local files; a subclass may take them from elsewhere."""
    for transform in getattr(pipeline, 'transforms', ()):
        if type(transform) is LoadImageFromFile:
            options = transform.backend_args or transform.file_client_args or {}
            return options.get('backend', 'local') in ('local', 'disk')
    return False


def _check(infos: Iterable[Mapping[str, Any]], key: str) -> None:
    paths = dict.fromkeys(info['img_path'] for info in infos)
    missing = [path for path in paths if '://' not in path and not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f'{missing[0]!r} does not exist; it is the first of {len(missing)} missing images '
            f'among the {len(paths)} that {key} needs. Expected the files that the annotation '
            f'file names, below data_root and data_prefix. Mend these two in {key}.dataset, or '
            'fetch the images.'
        )
