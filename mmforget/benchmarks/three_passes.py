"""Evaluation as the recipe's authors run it: a pass of its own for each set of classes."""

import copy
import json
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmforget.benchmarks.quiet import silent
from mmforget.structures import ForgettingTask


class ThreePasses:
    """AP of the forget, the retain and the old set, each on the images that show it.

    For each set the detector goes through the images with one of its objects, and MMDetection's
    CocoMetric scores its classes. Annotation files are narrowed once; loaders and evaluators are
    built once for each task and set.

    Args:
        config: The demo's config.
        folder: Where narrowed annotation files are kept.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.loader = copy.deepcopy(config.val_dataloader)
        # Else each data set that is built runs Python's garbage collector over all variants.
        self.loader.dataset.serialize_data = False
        self._built: dict[str, tuple[DataLoader, Evaluator]] = {}
        self.folder = folder
        self.document = json.loads(Path(config.val_evaluator.ann_file).read_text())

    def evaluate(self, detector: nn.Module, task: ForgettingTask) -> dict[str, float]:
        """One pass for each set that the task has.

        Returns:
            ``AP_f``, ``AP_r`` and, from the second task on, ``AP_o``.
        """
        return {
            name: self._one_pass(detector, classes, f'{task.name}_{name}')
            for name, classes in _sets(task).items()
        }

    def prepare(self, task: ForgettingTask) -> None:
        """Builds what a task's passes need."""
        for name, classes in _sets(task).items():
            self._build(classes, f'{task.name}_{name}')

    def _one_pass(self, detector: nn.Module, classes: tuple[str, ...], name: str) -> float:
        loader, evaluator = self._build(classes, name)
        detector.eval()
        # CocoMetric prints its progress and table.
        with silent(), torch.no_grad():
            for batch in loader:
                evaluator.process(data_samples=detector.val_step(batch), data_batch=batch)
            return float(evaluator.evaluate(len(loader.dataset))['coco/bbox_mAP'])

    def _build(self, classes: tuple[str, ...], name: str) -> tuple[DataLoader, Evaluator]:
        if name not in self._built:
            annotations = self._narrowed(classes, name)
            config = copy.deepcopy(self.loader)
            config.dataset.ann_file = str(annotations)
            with silent():
                loader = Runner.build_dataloader(config)
                metric = {'type': 'CocoMetric', 'ann_file': str(annotations), 'metric': 'bbox'}
                evaluator = Evaluator([metric])
            evaluator.dataset_meta = loader.dataset.metainfo
            self._built[name] = loader, evaluator
        return self._built[name]

    def _narrowed(self, classes: tuple[str, ...], name: str) -> Path:
        path = (self.folder / f'{name}.json').resolve()
        if not path.is_file():
            document = dict(self.document)
            wanted = {c['id'] for c in document['categories'] if c['name'] in classes}
            kept = [a for a in document['annotations'] if a['category_id'] in wanted]
            shown = {a['image_id'] for a in kept}
            document['annotations'] = kept
            document['images'] = [i for i in document['images'] if i['id'] in shown]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document))
        return path


def _sets(task: ForgettingTask) -> dict[str, tuple[str, ...]]:
    sets = {'AP_f': task.classes, 'AP_r': task.retained, 'AP_o': task.forgotten}
    return {name: classes for name, classes in sets.items() if classes}


def shorten_validation(config: Config, folder: Path, images: int) -> None:
    """Lets a config validate on the first images only, whoever reads the annotations."""
    document = json.loads(Path(config.val_evaluator.ann_file).read_text())
    document['images'] = document['images'][:images]
    kept = {image['id'] for image in document['images']}
    document['annotations'] = [a for a in document['annotations'] if a['image_id'] in kept]
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / f'val_{images}.json').resolve()
    path.write_text(json.dumps(document))
    config.val_dataloader.dataset.ann_file = str(path)
    config.val_evaluator.ann_file = str(path)
