"""The accuracy metric of forgetting, for recognition: Acc_f, Acc_r, Acc_o, Drop and H."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmforget.evaluation.base import ForgettingMetric
from mmforget.evaluation.forgetting_scores import (
    class_sets,
    drop,
    harmonic_mean,
    relative,
    scored_sets,
)
from mmforget.registry import METRICS
from mmforget.structures import ForgettingScenario, ForgettingTask


@dataclass
class AccuracyResult:
    """The scores of one task; shares of images in 0..1, ``None`` where undefined (spec A.2)."""

    Acc_f: float | None
    Acc_r: float | None
    Acc_o: float | None
    drop: float | None
    H: float | None
    H_ceiling: float | None
    Acc_r_relative: float | None
    Acc_m: float | None = None
    Acc_m_relative: float | None = None


@METRICS.register_module()
class ForgettingAccuracy(BaseMetric, ForgettingMetric):
    """Share of images whose class is found, for the sets of each task.

    The class with the highest score counts, whatever the head's loss in training: a margin on the
    true class is no part of a test. Alone, without a loop, it is plain accuracy.

    Args:
        topk: The class counts as found among so many highest scores.
        **kwargs: Those of MMEngine's BaseMetric.

    Attributes:
        base: ``{'per_class': {name: accuracy}, 'images': {name: number of images},
            'full': {'Acc': of all images}}`` of the loaded model.
        last: The scores of the last evaluation after a task.
        per_class: For each class accuracy before and after.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(topk, bool) or not isinstance(topk, int) or topk < 1:
            raise ValueError(f'ForgettingAccuracy got topk={topk!r}; expected at least 1.')
        self.topk = topk
        self.base: dict[str, Any] | None = None
        self.last: AccuracyResult | None = None
        self.per_class: dict[str, list[float | None]] = {}
        self._scenario: ForgettingScenario | None = None
        self._task: ForgettingTask | None = None

    def begin(self, scenario: ForgettingScenario, base: dict | None = None) -> None:
        """Puts the metric into a loop's hands.

        Raises:
            ValueError: ``base`` was measured with another label map, or is a detector's.
        """
        missing = [n for n in scenario.classes if base and n not in base.get('per_class', {})]
        if missing:
            raise ValueError(
                f'The base reference has no accuracy of {", ".join(missing)}; it was measured '
                'with another label map.'
            )
        if base and 'images' not in base:
            raise ValueError(
                f'The base reference has the keys {sorted(base)}; expected images among them, as '
                "ForgettingAccuracy measures them: it seems to be a detector's."
            )
        self._scenario, self._task, self.last = scenario, None, None
        self.base = base or self.base

    def set_task(self, task: ForgettingTask | None) -> None:
        if self._scenario is None:
            raise RuntimeError('ForgettingAccuracy.set_task was called before begin.')
        self._task, self.last = task, None

    def row(self) -> dict[str, Any]:
        return {'full': asdict(self.last), 'restricted': {}, 'per_class': self.per_class}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Notes of each image its label and whether it was found.

        Args:
            data_batch: Not looked at.
            data_samples: Each with ``gt_label`` (1,) and ``pred_scores`` (C,).
        """
        for sample in data_samples:
            label = int(sample['gt_label'])
            best = sample['pred_scores'].topk(min(self.topk, len(sample['pred_scores']))).indices
            self.results.append((label, bool(torch.isin(torch.tensor(label), best.cpu()))))

    def evaluate(self, size: int) -> dict[str, float]:
        """As BaseMetric's, with what was found made known to every process."""
        metrics = super().evaluate(size)
        known = [self.base, self.last, self.per_class]
        broadcast_object_list(known)
        self.base, self.last, self.per_class = known
        return metrics

    def compute_metrics(self, results: list[tuple[int, bool]]) -> dict[str, float]:
        """Top-k accuracy; in a loop's hands the scores of the task as well."""
        metrics = {f'top{self.topk}': sum(found for _, found in results) / max(1, len(results))}
        if self._scenario is None:
            return metrics
        classes = self._scenario.classes
        images = {name: 0 for name in classes}
        right = {name: 0 for name in classes}
        for label, found in results:
            images[classes[label]] += 1
            right[classes[label]] += found
        per_class = {n: right[n] / images[n] if images[n] else None for n in classes}
        if self._task is None:
            self.base = {
                'per_class': per_class,
                'images': images,
                'full': {'Acc': metrics[f'top{self.topk}']},
            }
            return metrics
        before = (self.base or {}).get('per_class', dict.fromkeys(classes))
        self.per_class = {name: [before[name], per_class[name]] for name in classes}
        self.last = _scores(self._task, images, per_class, before)
        self._log(self._task, self.last)
        return metrics | {k: v for k, v in asdict(self.last).items() if v is not None}

    def _log(self, task: ForgettingTask, scores: AccuracyResult) -> None:
        rows = [
            [name, role, *map(_text, self.per_class[name])]
            for role, names in class_sets(task).items()
            for name in names
        ]
        summary = [
            [key, _text(value)]
            for key, value in asdict(scores).items()
            if task.missing or '_m' not in key
        ]
        MMLogger.get_current_instance().info(
            f'Forgetting after {task.name} '
            '(role f: to forget, o: forgotten earlier, r: retained)'
            f'\n{AsciiTable([["class", "role", "before", "after"], *rows]).table}'
            f'\n{AsciiTable([["score", "value"], *summary]).table}'
        )


def _scores(
    task: ForgettingTask,
    images: Mapping[str, int],
    now: Mapping[str, float | None],
    before: Mapping[str, float | None],
) -> AccuracyResult:
    sets = scored_sets(task)
    acc = {letter: _share(names, images, now) for letter, names in sets.items()}
    base = {letter: _share(names, images, before) for letter, names in sets.items()}
    fallen = drop(base['f'], acc['f'])
    return AccuracyResult(
        Acc_f=acc['f'],
        Acc_r=acc['r'],
        Acc_o=acc['o'],
        drop=fallen,
        H=harmonic_mean(acc['r'], fallen),
        H_ceiling=harmonic_mean(base['r'], base['f']),
        Acc_r_relative=relative(acc['r'], base['r']),
        Acc_m=acc['m'],
        Acc_m_relative=relative(acc['m'], base['m']),
    )


def _share(
    names: Sequence[str], images: Mapping[str, int], accuracy: Mapping[str, float | None]
) -> float | None:
    """Accuracy on all images of a set of classes; ``None`` without images or figures."""
    known = [name for name in names if images[name] and accuracy[name] is not None]
    total = sum(images[name] for name in known)
    return sum(images[name] * accuracy[name] for name in known) / total if total else None


def _text(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'
