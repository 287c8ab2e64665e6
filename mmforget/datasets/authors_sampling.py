"""The images that the authors' detection code draws (spec A.4)."""

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.fileio import get_local_path

from mmforget.datasets.stream_source import StreamSource
from mmforget.structures import StreamSampling


@dataclass(frozen=True)
class AnnotationOrder:
    """The annotations of a COCO file, as they follow one another in it.

    Attributes:
        image_ids: The image of each annotation, crowds and degenerate boxes included.
        labels: Its label; -1 where the detector does not know the category.
        places: Image ids and their indices in the training data set.
        ann_file: The file, for messages.
    """

    image_ids: Sequence[int]
    labels: Sequence[int]
    places: dict[int, int]
    ann_file: str


def annotation_order(dataset: Any) -> AnnotationOrder:
    """Reads the annotation file again: MMDetection keeps nothing of its order.

    Args:
        dataset: The built training data set.

    Raises:
        ValueError: It is not one CocoDataset.
    """
    source = StreamSource(dataset)
    part = source.parts[0]
    label_of = getattr(part, 'cat2label', None)
    if len(source.parts) != 1 or label_of is None:
        raise ValueError(
            f'authors_seed is set, but the training data are {type(part).__name__} of '
            f'{source.ann_file}; expected one CocoDataset, from whose file the authors draw. Leave '
            'authors_seed out.'
        )
    with (
        get_local_path(part.ann_file, backend_args=part.backend_args) as path,
        open(path, encoding='utf-8') as file,
    ):
        annotations = json.load(file)['annotations']
    return AnnotationOrder(
        [annotation['image_id'] for annotation in annotations],
        [label_of.get(annotation['category_id'], -1) for annotation in annotations],
        {source.info(image)['img_id']: image for image in range(len(source))},
        str(part.ann_file),
    )


def authors_images(
    order: AnnotationOrder, labels: Collection[int], sampling: StreamSampling, stream: str
) -> list[int]:
    """Draws a stream's images as the authors do, whatever the task and the run's seed.

    Candidates are the images with an annotation of ``labels``, in the order in which a Python set
    gives their ids. Where more are wanted than there are, the authors draw with replacement and
    lose the doubles: fewer images than candidates.

    Args:
        order: Of ``annotation_order``.
        labels: The labels of the stream's classes.
        sampling: With ``authors_seed``.
        stream: Its name, for messages.

    Returns:
        Image indices, ascending.

    Raises:
        ValueError: No candidate, or one that is drawn is not among the training data.
    """
    wanted = set(labels)
    pairs = zip(order.image_ids, order.labels, strict=True)
    # A set's order depends on the order in which it is filled.
    candidates = list({image for image, label in pairs if label in wanted})
    if not candidates:
        raise ValueError(
            f'The stream {stream!r} has no image: {order.ann_file} holds no annotation of its '
            'classes.'
        )
    if sampling.ratio is not None:
        size = int(len(candidates) * sampling.ratio)
    else:
        size = sampling.images or sampling.shots * len(wanted)
    generator = random.Random(sampling.authors_seed)
    if size <= len(candidates):
        drawn = generator.sample(candidates, size)
    else:
        drawn = generator.choices(candidates, k=size)
    absent = sorted(image for image in set(drawn) if image not in order.places)
    if absent:
        raise ValueError(
            f'The stream {stream!r} draws the image ids {absent[:5]} of {order.ann_file} '
            f'({len(absent)} in all), which train_dataloader.dataset leaves out. Give it '
            'filter_cfg=dict(filter_empty_gt=False, min_size=0), as the authors have it.'
        )
    return sorted(order.places[image] for image in set(drawn))
