"""The images behind the streams: the training data set, without its wrappers."""

import bisect
import json
import mmap
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.fileio import get_local_path

from mmforget.datasets.category_search import category_lists


class StreamSource:
    """The training data set as one plain list of images.

    ``RepeatDataset`` is taken off (streams are endless anyway); the parts of a ``ConcatDataset``
    follow one another, each with its own pipeline. Image indices count through the parts without
    their repetitions.

    Args:
        dataset: A built data set. It is fully initialised if it is not yet; its annotation file
            is read by nobody else.

    Attributes:
        parts: The plain data sets, at least one.
        classes: The label map that all parts share.

    Raises:
        TypeError: A wrapper that draws or mixes images itself.
        ValueError: No class names, or parts with different label maps.
    """

    def __init__(self, dataset: Any) -> None:
        self.parts = _unwrap(dataset)
        for part in self.parts:
            part.full_init()
        maps = [tuple(part.metainfo.get('classes') or ()) for part in self.parts]
        self.classes: tuple[str, ...] = maps[0]
        for part, classes in zip(self.parts, maps, strict=True):
            if not classes:
                raise ValueError(
                    f'The data set {part.ann_file!r} has no class names; expected '
                    "metainfo=dict(classes=(...)) with the detector's full label map."
                )
            if classes != self.classes:
                raise ValueError(
                    f'The data sets {self.parts[0].ann_file!r} and {part.ann_file!r} are '
                    f'concatenated but have the label maps {self.classes} and {classes}; give '
                    'both the same metainfo.'
                )
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def ann_file(self) -> str:
        """The annotation files, for messages."""
        return ', '.join(str(part.ann_file) for part in self.parts)

    def _locate(self, image: int) -> tuple[BaseDataset, int]:
        part = bisect.bisect_right(self._ends, image)
        return self.parts[part], image - (self._ends[part - 1] if part else 0)

    def info(self, image: int) -> dict[str, Any]:
        """A fresh copy of what MMDetection knows of an image (``img_path``, ``instances``, ...).

        Raises:
            ValueError: The data set has no ``instances``, the form of detection data sets.
        """
        part, index = self._locate(image)
        info = part.get_data_info(index)
        if 'instances' not in info:
            raise ValueError(
                f"The data set {part.ann_file!r} ({type(part).__name__}) gives no 'instances' for "
                f'image {index}; expected a detection data set such as CocoDataset.'
            )
        return info

    def pipeline(self, image: int) -> Callable[[dict[str, Any]], Any]:
        """The transforms of the part that an image is from."""
        return self._locate(image)[0].pipeline


def _unwrap(dataset: Any) -> list[BaseDataset]:
    if isinstance(dataset, BaseDataset):
        return [dataset]
    if isinstance(dataset, RepeatDataset):
        return _unwrap(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return [part for inner in dataset.datasets for part in _unwrap(inner)]
    raise TypeError(
        f'The training data set is a {type(dataset).__name__}; expected a plain detection data '
        'set (CocoDataset, VOCDataset, ...), or RepeatDataset or ConcatDataset around such. Other '
        'wrappers draw or mix images themselves, which would mix the forget and the retain '
        'stream. Put the inner data set and a pipeline without multi-image transforms into '
        'train_dataloader.dataset.'
    )


def check_label_map(source: StreamSource) -> None:
    """Makes sure that label i of a COCO-style data set is the class with the i-th name.

    CocoDataset numbers labels in the order of the file's categories and leaves out the names that
    the file lacks; ``metainfo.classes`` is taken at its word. Where the two disagree, another
    class than the named one would be forgotten. Only the file's categories are read. Data sets
    without ``cat_ids`` number their labels by name and need no check.

    Args:
        source: The training data set.

    Raises:
        ValueError: The numbers of classes differ, or the order does.
    """
    for part in source.parts:
        cat_ids = getattr(part, 'cat_ids', None)
        if cat_ids is None:
            continue
        names = _category_names(part)
        if len(cat_ids) != len(source.classes):
            missing = sorted(set(source.classes) - set((names or {}).values()))
            raise ValueError(
                f'{part.ann_file!r} holds {len(cat_ids)} of the {len(source.classes)} classes of '
                f'the label map (missing: {", ".join(missing) or "unknown"}; the file names '
                f'{", ".join((names or {}).values()) or "none"}), so that {type(part).__name__} '
                'renumbers the labels. List all classes in the '
                "file's categories, in the order of metainfo.classes; they may lack annotations."
            )
        if names is None:
            continue
        for label, (cat_id, name) in enumerate(zip(cat_ids, source.classes, strict=True)):
            named = names.get(cat_id)
            # A name foreign to the label map is an alias (LVIS), not another order.
            if named != name and named in source.classes:
                raise ValueError(
                    f'Label {label} is {name!r} in metainfo.classes but {named!r} in '
                    f'{part.ann_file!r}: {type(part).__name__} numbers labels in the order of the '
                    "file's categories. Give metainfo.classes in that order."
                )


def _category_names(part: BaseDataset) -> dict[int, str] | None:
    """Names by category id; ``None`` where the file cannot be looked into."""
    try:
        with (
            get_local_path(part.ann_file, backend_args=getattr(part, 'backend_args', None)) as path,
            open(path, 'rb') as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            for at in category_lists(text):
                tail = text[at : at + (1 << 20)].decode(errors='ignore')
                try:
                    value, _ = json.JSONDecoder().raw_decode(tail)
                    return {entry['id']: entry['name'] for entry in value}
                except (ValueError, TypeError, KeyError):
                    pass
    except (OSError, ValueError):
        pass
    return None
