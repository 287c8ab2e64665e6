"""Which images a stream may draw from, and which of them it gets (spec A.4, E.1.11, F)."""

import heapq
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmforget.datasets.stream_seeds import Purpose, permutation, seed_sequence
from mmforget.datasets.stream_source import StreamSource, check_label_map
from mmforget.structures import ForgettingScenario, StreamSampling


@dataclass(frozen=True)
class StreamIndex:
    """Which images hold which classes; made once, used by all tasks.

    Attributes:
        classes: The full label map.
        images_of: For each class the images with at least one of its objects: ascending int64
            indices of shape (number of images,), see ``StreamSource`` for what they count.
        num_images: Images of the data set, those without objects included.
        ann_file: The annotation file or files, for messages.
    """

    classes: tuple[str, ...]
    images_of: dict[str, np.ndarray]
    num_images: int
    ann_file: str

    def candidates(self, classes: Sequence[str]) -> np.ndarray:
        """The images with at least one annotation of ``classes``: ascending int64, (N,).

        Raises:
            ValueError: ``classes`` is empty, a plain string, or names an unknown class.
        """
        if isinstance(classes, str) or not classes:
            raise ValueError(
                f'A stream got the classes {classes!r}; expected at least one name, in a list.'
            )
        unknown = [name for name in classes if name not in self.images_of]
        if unknown:
            raise ValueError(
                f'A stream names the unknown classes {", ".join(map(repr, unknown))}; '
                f'{self.ann_file} has: {", ".join(self.classes)}.'
            )
        return np.unique(np.concatenate([self.images_of[name] for name in classes]))


def class_index(dataset: Any) -> StreamIndex:
    """Looks once through the annotations of the training data set.

    Crowd and other ignored annotations count (spec A.4.1). Annotations and images that the data
    set itself leaves out (degenerate boxes, ``filter_cfg``) do not.

    Args:
        dataset: The built training data set with the full label map; ``RepeatDataset`` and
            ``ConcatDataset`` are allowed.

    Raises:
        TypeError: The data set is wrapped in something else.
        ValueError: No class names, or labels that do not follow them.
    """
    source = StreamSource(dataset)
    check_label_map(source)
    images: list[list[int]] = [[] for _ in source.classes]
    for image in range(len(source)):
        for label in {instance['bbox_label'] for instance in source.info(image)['instances']}:
            images[label].append(image)
    images_of = {
        name: np.array(found, dtype=np.int64)
        for name, found in zip(source.classes, images, strict=True)
    }
    return StreamIndex(source.classes, images_of, len(source), source.ann_file)


def check_forget_classes(index: StreamIndex, scenario: ForgettingScenario) -> None:
    """Checks that there is an image of every class that is to be forgotten.

    Args:
        index: Result of ``class_index``.
        scenario: The tasks.

    Raises:
        ValueError: A class without images. It would stay known, while the results tell of a task
            that was done.
    """
    for task in scenario.tasks:
        for name in task.classes:
            if not len(index.images_of[name]):
                found = [known for known in index.classes if len(index.images_of[known])]
                raise ValueError(
                    f'scenario.tasks[{task.index}] names the class {name!r}, of which '
                    f'{index.ann_file} holds no image. Expected at least one image with an '
                    'annotation of each class to forget. Take the class out of the task, or set '
                    'train_dataloader.dataset to data that show it. Classes with images: '
                    f'{", ".join(found) or "none"}.'
                )


def sample_images(
    index: StreamIndex,
    classes: Sequence[str],
    sampling: StreamSampling,
    seed: int,
    task: int,
    stream: str,
) -> list[int]:
    """Draws the images of one stream for one task, without replacement.

    Candidates are the images with at least one annotation of ``classes``. Jointly (the paper's
    way) ``images`` draws that many of them, ``ratio`` ``int(ratio * candidates)`` but at least
    one, and ``shots`` k images per class in total, in which common classes dominate.

    With ``balanced`` one random order of all candidates is fixed, and the classes take turns, the
    one with the fewest candidates first (ties: label order). Each takes images of its own in that
    random order until it has its quota, where an image counts for every class it holds: a class
    that has enough by then takes none. ``shots`` k gives the quota k, hence every class has at
    least k images where it has k candidates, and at most ``k * len(classes)`` are drawn in total.
    ``images`` n (or the n that ``ratio`` makes) gives the quota ``n // len(classes)``; what is
    left of n is then given one by one to the class that has the fewest images and more to take.

    With ``recurring`` the random order is that of all images and the same for all tasks.

    The result depends on the arguments alone. A larger size with the same seed draws a superset,
    unless balanced.

    Args:
        index: Result of ``class_index``.
        classes: The stream's classes (F_t or R_t), in any order.
        sampling: Size and manner of the sample.
        seed: The run's seed.
        task: Index of the task.
        stream: Name of the stream, ``'forget'`` or ``'retain'``.

    Returns:
        Image indices, ascending.

    Raises:
        ValueError: No candidate at all, unknown classes, or a negative seed or task.
    """
    candidates = index.candidates(classes)
    # In label order, so that neither the caller's order nor repetitions matter.
    names = [name for name in index.classes if name in set(classes)]
    if not len(candidates):
        raise ValueError(
            f'The stream {stream!r} of task {task} has no image: {index.ann_file} holds no '
            f'annotation of {", ".join(map(repr, names))}. Check the scenario and the training '
            'annotations.'
        )
    if sampling.images is not None:
        size = sampling.images
    elif sampling.ratio is not None:
        size = max(1, int(sampling.ratio * len(candidates)))
    else:
        size = sampling.shots * len(names)

    order = _random_order(index, candidates, sampling, seed, task, stream)
    if not sampling.balanced:
        absent = [name for name in names if not len(index.images_of[name])]
        if absent:
            _warn(
                f'The stream {stream!r} of task {task} has no image of {", ".join(absent)}: '
                f'{index.ann_file} holds none.'
            )
        if size > len(candidates):
            _warn(
                f'The stream {stream!r} of task {task} asks for {size} images, but only '
                f'{len(candidates)} hold one of its {len(names)} classes; it takes all.'
            )
        return sorted(order[:size].tolist())

    quota = sampling.shots or size // len(names)
    short = {n: len(index.images_of[n]) for n in names if len(index.images_of[n]) < quota}
    if short:
        _warn(
            f'The stream {stream!r} of task {task} asks for {quota} images of each class, but '
            f'these have fewer: {", ".join(f"{n} {count}" for n, count in short.items())}; it '
            'takes all of theirs.'
        )
    fill = None if sampling.shots else min(size, len(candidates))
    return _draw_balanced([index.images_of[n] for n in names], order, quota, fill)


def _random_order(
    index: StreamIndex,
    candidates: np.ndarray,
    sampling: StreamSampling,
    seed: int,
    task: int,
    stream: str,
) -> np.ndarray:
    """The candidates in the order in which they are drawn."""
    if not sampling.recurring:
        sequence = seed_sequence(Purpose.SAMPLE, seed, task, stream)
        return candidates[permutation(len(candidates), sequence)]
    order = permutation(index.num_images, seed_sequence(Purpose.RECURRING, seed, 0, stream))
    return order[np.isin(order, candidates)]


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def _draw_balanced(
    images_of: list[np.ndarray], order: np.ndarray, quota: int, fill: int | None
) -> list[int]:
    """The rule that ``sample_images`` describes.

    Args:
        images_of: Candidates of each class.
        order: All candidates, in the random order of the draw.
        quota: Images that each class takes.
        fill: The total to fill up to afterwards; ``None`` for no filling.
    """
    place = np.empty(int(order.max()) + 1, dtype=np.int64)
    place[order] = np.arange(len(order))
    rare_first = sorted(images_of, key=len)
    # Reversed, so that pop() gives the next one.
    waiting = [images[np.argsort(-place[images])].tolist() for images in rare_first]
    holders = _Holders(rare_first)
    counts = [0] * len(rare_first)
    chosen: set[int] = set()

    def take(label: int) -> bool:
        while waiting[label]:
            image = waiting[label].pop()
            if image not in chosen:
                chosen.add(image)
                for holder in holders.of(image):
                    counts[holder] += 1
                return True
        return False

    for label in range(len(rare_first)):
        while counts[label] < quota and take(label):
            pass
    # Counts only grow, so an entry with its present count is the smallest of all.
    fewest = [(count, label) for label, count in enumerate(counts)]
    heapq.heapify(fewest)
    while fill is not None and len(chosen) < fill:
        count, label = fewest[0]
        if count < counts[label] or take(label):
            heapq.heapreplace(fewest, (counts[label], label))
        else:
            heapq.heappop(fewest)
    return sorted(chosen)


class _Holders:
    """Which of several classes hold an image.

    Args:
        images_of: The images of each class.
    """

    def __init__(self, images_of: Sequence[np.ndarray]) -> None:
        images = np.concatenate(images_of)
        labels = np.repeat(np.arange(len(images_of)), [len(found) for found in images_of])
        order = np.argsort(images, kind='stable')
        self._labels = labels[order].tolist()
        self._ends = np.cumsum(np.bincount(images)).tolist()

    def of(self, image: int) -> list[int]:
        """The positions of the classes, ascending."""
        return self._labels[self._ends[image - 1] if image else 0 : self._ends[image]]
