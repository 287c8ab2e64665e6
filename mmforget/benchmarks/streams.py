"""Level ``streams``: the data streams of seven tasks for an annotation file of COCO's size."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from mmdet.datasets import CocoDataset
from pycocotools.coco import COCO

from mmforget.benchmarks.measurement import Action, Case, Detail, Settings
from mmforget.benchmarks.quiet import silent
from mmforget.datasets.stream_sampling import class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.methods import FORGET, RETAIN
from mmforget.structures import ForgettingScenario, StreamSampling

CLASSES = tuple(f'class {number:02d}' for number in range(80))
# COCO train2017 has 118,287 images and 860,001 boxes.
FULL_SIZE, QUICK_SIZE = (118_287, 860_001), (300, 2_000)
TASKS, CLASSES_A_TASK = 7, 10
REFERENCE = 'R0 a file read per data set'
OURS = 'mmforget'
_SHARE = 0.1


def annotation_file(folder: Path, images: int, boxes: int, seed: int = 0) -> Path:
    """Makes an annotation file whose classes are as uneven as COCO's; once.

    Args:
        folder: Where it is kept.
        images: Number of images, which exist in the file alone.
        boxes: Number of boxes.
        seed: Of everything in it.
    """
    path = folder / f'streams_{images}_{boxes}_{seed}.json'
    if path.is_file():
        return path
    generator = np.random.default_rng(seed)
    weights = 1 / (1 + np.arange(len(CLASSES)))
    of_box = generator.choice(len(CLASSES), boxes, p=weights / weights.sum())
    of_image = np.sort(generator.integers(1, images + 1, boxes))
    corners = generator.integers(0, 400, (boxes, 2)).tolist()
    extents = generator.integers(8, 200, (boxes, 2)).tolist()
    document = {
        'images': [
            {'id': i, 'file_name': f'{i:012d}.jpg', 'height': 640, 'width': 640}
            for i in range(1, images + 1)
        ],
        'annotations': [
            {
                'id': number,
                'image_id': image,
                'category_id': label + 1,
                'bbox': [*corner, *extent],
                'area': extent[0] * extent[1],
                'iscrowd': 0,
            }
            for number, (image, label, corner, extent) in enumerate(
                zip(of_image.tolist(), of_box.tolist(), corners, extents, strict=True), start=1
            )
        ],
        'categories': [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)],
    }
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(document))
    temporary.replace(path)
    return path


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
        start = time.perf_counter()
        with silent():
            dataset = CocoDataset(
                ann_file=str(self.path), metainfo={'classes': CLASSES}, pipeline=[]
            )
        parsed = time.perf_counter()
        index = class_index(dataset)
        indexed = time.perf_counter()
        sampling = StreamSampling(ratio=_SHARE)
        self.images = 0
        for task in scenario().tasks:
            for stream, classes in ((FORGET, task.classes), (RETAIN, task.retained)):
                images = sample_images(index, classes, sampling, 0, task.index, stream)
                self.images += len(StreamDataset(dataset, images, classes))
        self.seconds = {
            "MMDetection's reading s": parsed - start,
            'index s': indexed - parsed,
            'streams s': time.perf_counter() - indexed,
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
            'without masks. R0 looks ids up in sets, where its authors search lists. No image is '
            'loaded.',
        )
    ]
