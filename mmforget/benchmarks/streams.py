"""Level ``streams``: the data streams of seven tasks for an annotation file of COCO's size."""

import time
from functools import partial
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO

from mmforget.benchmarks.measurement import Action, Case, Detail, Settings
from mmforget.benchmarks.quiet import silent
from mmforget.datasets.annotation_checks import check_categories, checked_boxes
from mmforget.datasets.image_checks import check_stream_images
from mmforget.datasets.stream_sampling import check_forget_classes, class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.methods import FORGET, RETAIN
from mmforget.structures import ForgettingScenario, StreamSampling
from mmforget.testing import write_large_coco
from mmforget.testing.large_coco import CLASSES

# COCO train2017 has 118,287 images and 860,001 boxes.
FULL_SIZE, QUICK_SIZE = (118_287, 860_001), (300, 2_000)
TASKS, CLASSES_A_TASK = 7, 10
REFERENCE = 'R0 a file read per data set'
OURS = 'mmforget'
# What is to be fast: all but MMDetection's own reading of the file.
WORK = 'index and streams, with checks s'
_SHARE = 0.1


def annotation_file(folder: Path, images: int, boxes: int, seed: int = 0) -> Path:
    """The annotation file in ``folder``, and its images; made once."""
    place = folder / f'streams_{images}_{boxes}_{seed}'
    path = place / 'annotations.json'
    return path if path.is_file() else write_large_coco(place, images, boxes, seed)


def scenario() -> ForgettingScenario:
    """Seven tasks of ten classes; ten are kept to the end."""
    requests = [
        CLASSES[CLASSES_A_TASK * task : CLASSES_A_TASK * (task + 1)] for task in range(TASKS)
    ]
    return ForgettingScenario.from_requests(requests, CLASSES)


class ReadPerStream(Action):
    """The file is read for each data set of each task, and its boxes narrowed by their class.

    Args:
        path: The annotation file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = 0

    def warm(self) -> None:
        """The file is in the system's cache, since it has just been made or looked at."""
        self.path.read_bytes()

    def __call__(self) -> None:
        self.images = 0
        for task in scenario().tasks:
            for classes in (task.classes, task.retained):
                self.images += len(_read_narrowed(self.path, classes))

    def details(self) -> dict[str, Detail]:
        return {'images in all streams': self.images}


def _read_narrowed(path: Path, classes: tuple[str, ...]) -> dict[int, list[dict]]:
    with silent():
        coco = COCO(str(path))
    wanted = set(coco.getCatIds(catNms=list(classes)))
    candidates = sorted({a['image_id'] for a in coco.anns.values() if a['category_id'] in wanted})
    generator = np.random.RandomState(123)
    chosen = generator.permutation(candidates)[: max(1, int(_SHARE * len(candidates)))]
    return {
        int(image): [a for a in coco.imgToAnns[int(image)] if a['category_id'] in wanted]
        for image in chosen
    }


class IndexOnce(Action):
    """MMDetection's data set is built once, its classes are indexed once.

    Args:
        path: The annotation file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        self.images = 0

    def warm(self) -> None:
        """The file is in the system's cache, since it has just been made or looked at."""
        self.path.read_bytes()

    def __call__(self) -> None:
        config = {
            'ann_file': str(self.path),
            'data_prefix': {'img': str(self.path.parent / 'images')},
            'pipeline': [],
        }
        start = time.perf_counter()
        # The order and the checks are those of the loop.
        check_categories({'type': CocoDataset, **config})
        with silent(), checked_boxes():
            dataset = CocoDataset(**config)
        parsed = time.perf_counter()
        index = class_index(dataset)
        check_forget_classes(index, scenario())
        indexed = time.perf_counter()
        sampling = StreamSampling(ratio=_SHARE)
        streams = [
            StreamDataset(
                dataset,
                sample_images(index, classes, sampling, 0, task.index, stream),
                classes,
            )
            for task in scenario().tasks
            for stream, classes in ((FORGET, task.classes), (RETAIN, task.retained))
        ]
        check_stream_images(
            dataset, sorted({int(image) for stream in streams for image in stream.image_indices})
        )
        self.images = sum(map(len, streams))
        self.seconds = {
            "MMDetection's reading, with checks s": parsed - start,
            'index s': indexed - parsed,
            WORK: time.perf_counter() - parsed,
        }

    def details(self) -> dict[str, Detail]:
        found: dict[str, Detail] = {'images in all streams': self.images}
        return found | {name: round(value, 4) for name, value in self.seconds.items()}


def cases(settings: Settings) -> list[Case]:
    """All streams of seven tasks, forget and retain."""
    images, boxes = QUICK_SIZE if settings.quick else FULL_SIZE

    def build(kind: type[ReadPerStream] | type[IndexOnce]) -> Action:
        return kind(annotation_file(Path(settings.scratch), images, boxes, settings.seed))

    return [
        Case(
            level='streams',
            title=f'{TASKS} tasks, {images:,} images, {boxes:,} boxes',
            reference=REFERENCE,
            variants={REFERENCE: partial(build, ReadPerStream), OURS: partial(build, IndexOnce)},
            note='The annotation file is made by the script, of the size of COCO train2017 but '
            'without masks. R0 looks ids up in sets, where its authors search lists; it checks '
            'nothing. No image is loaded.',
        )
    ]
