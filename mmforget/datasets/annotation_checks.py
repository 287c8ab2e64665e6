"""What is wrong in a COCO annotation file is said when the data set is built."""

import functools
import logging
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from mmforget.datasets.category_search import category_lists


def check_categories(config: Any) -> None:
    """Checks that the annotation files of a data set's config name categories.

    Each local file of a CocoDataset is searched for the key, not parsed.

    Args:
        config: Config of a data set, which may wrap others; anything else is left alone.

    Raises:
        ValueError: A file without categories.
    """
    if not isinstance(config, Mapping):
        return
    for inner in (config.get('dataset'), *(config.get('datasets') or ())):
        check_categories(inner)
    path = _annotation_file(config)
    if path is None:
        return
    with path.open('rb') as file:
        if path.stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                if any(category_lists(text)):
                    return
    raise ValueError(
        f'{path} has no categories: expected a COCO annotation file with images, annotations and '
        "a list 'categories' of {'id': ..., 'name': ...}, one for each class of the detector. Give "
        'an annotation file with labels as ann_file, or add the categories to this one.'
    )


def _annotation_file(config: Mapping[str, Any]) -> Path | None:
    """The local annotation file that a CocoDataset's config names, if it is there."""
    kind, file = config.get('type'), config.get('ann_file')
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (file and isinstance(cls, type) and issubclass(cls, CocoDataset)):
        return None
    # Joined as mmengine joins it: an absolute file stays as it is.
    path = Path(config.get('data_root') or '') / file
    return path if path.suffix == '.json' and path.is_file() else None


@contextmanager
def checked_boxes() -> Iterator[None]:
    """While open, looks at the boxes of every CocoDataset that is read.

    MMDetection drops a box outside its image without a word, so that its object would be neither
    forgotten nor kept; afterwards only the file itself could tell. Boxes whose centre lies outside
    get one warning: data sets with boxes of whole objects (of people behind the image's edge) have
    such boxes rightly, files with corners in the place of width and height wrongly.

    Raises:
        ValueError: When closed: a box wholly outside its image.
    """
    original = CocoDataset.parse_data_info
    outside: list[str] = []
    centre_outside: list[str] = []

    @functools.wraps(original)
    def watched(self: CocoDataset, raw_data_info: dict) -> Any:
        image = raw_data_info['raw_img_info']
        for annotation in raw_data_info['raw_ann_info']:
            found = _place(annotation, image)
            # Of no class of the detector: left out by MMDetection as well.
            if found is not None and annotation['category_id'] in self.cat_ids:
                list_ = outside if found == 'outside' else centre_outside
                list_.append(
                    f'{self.ann_file}, annotation {annotation.get("id")}: bbox '
                    f'{annotation["bbox"]} on {image["file_name"]!r}, which is '
                    f'{image["width"]} x {image["height"]} pixels'
                )
        return original(self, raw_data_info)

    CocoDataset.parse_data_info = watched
    try:
        yield
    finally:
        CocoDataset.parse_data_info = original
    expected = 'expected [x, y, width, height] in pixels of the image'
    if outside:
        raise ValueError(
            f'{len(outside)} boxes lie outside their images ({outside[0]}); {expected}. Mend or '
            'delete these annotations, or mend the width and height of the image.'
        )
    if centre_outside:
        print_log(
            f'{len(centre_outside)} boxes have their centre outside their images '
            f'({centre_outside[0]}); {expected}. Make sure that they are not [x1, y1, x2, y2].',
            logger='current',
            level=logging.WARNING,
        )


@contextmanager
def checked_filter() -> Iterator[None]:
    """While open, a CocoDataset whose filter leaves no image says why.

    Raises:
        ValueError: No image is left; MMEngine would stop at an empty array.
    """
    original = CocoDataset.filter_data

    @functools.wraps(original)
    def watched(self: CocoDataset) -> Any:
        kept = original(self)
        if self.data_list and not kept:
            classes = self.metainfo['classes']
            raise ValueError(
                f'{self.ann_file}: none of {len(self.data_list)} images is left after '
                f'filter_cfg={self.filter_cfg!r}; {len(self.cat_ids)} of the {len(classes)} '
                f'classes ({", ".join(classes[:5])}, ...) are categories of the file. Expected '
                'images that hold an object of a class and whose shorter side is at least '
                'min_size. Mend metainfo.classes, which must be named as in the file, or '
                'filter_cfg.'
            )
        return kept

    CocoDataset.filter_data = watched
    try:
        yield
    finally:
        CocoDataset.filter_data = original


def _place(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> str | None:
    """``'outside'``, ``'centre outside'``, or ``None`` for a box that lies well or has no area."""
    if annotation.get('ignore') or annotation.get('iscrowd') or not annotation.get('bbox'):
        return None
    x, y, width, height = annotation['bbox']
    if width <= 0 or height <= 0:
        return None
    right, bottom = image['width'], image['height']
    if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
        return 'outside'
    if not (0 <= x + width / 2 <= right and 0 <= y + height / 2 <= bottom):
        return 'centre outside'
    return None
