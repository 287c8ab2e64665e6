"""The COCO metric of forgetting: MMDetection's CocoMetric plus AP_f, AP_r, AP_o, Drop and H."""

import json
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmengine.dist import broadcast_object_list
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmforget.evaluation.base import ForgettingMetric
from mmforget.evaluation.fast_coco_eval import FastCOCOeval, fast_eval_installed
from mmforget.evaluation.forgetting_scores import (
    ClassAP,
    ForgettingScores,
    class_sets,
    mean_ap,
    protocol_result,
    scored_sets,
    set_means,
)
from mmforget.evaluation.restricted_coco import (
    box_results,
    category_ap,
    detection_index,
    evaluate_detections,
    mask_results,
    per_class_ap,
    quiet,
    restricted_ap,
)
from mmforget.registry import METRICS
from mmforget.structures import ForgettingScenario, ForgettingTask

# What forgetting is scored on, and what makes COCO results out of the predictions.
_RESULTS = {'bbox': box_results, 'segm': mask_results}
# The names that CocoMetric gives to the twelve numbers of COCOeval.summarize, in their order.
_SUMMARY = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000'),
)


@METRICS.register_module()
class ForgettingCocoMetric(CocoMetric, ForgettingMetric):
    """COCO metric that tells how well classes were forgotten and the others kept (spec A.2, A.5).

    One inference pass and one matching yield everything: MMDetection's usual numbers, the scores
    with every class on all images (full protocol), and the scores with each set on the images
    that show it (restricted protocol). With ``'segm'`` in ``metric`` all of it is measured on masks
    as well: a forgotten class has no boxes and no masks.

    A loop drives it with :meth:`begin` and :meth:`set_task` and reads :attr:`base` and
    :attr:`last`. Alone, for example under MMDetection's ``tools/test.py``, it takes ``scenario``,
    ``task`` and ``base``. With neither it is a plain CocoMetric.

    Args:
        *args: Those of CocoMetric, all of them.
        scenario: As the loop's: ``dict(tasks=[[name, ...], ...])``; how streams are drawn is not
            looked at.
        task: Which task the detector has just forgotten, from 0; ``None`` for the last one.
        base: Path of a ``forgetting.json`` whose ``base`` block holds the loaded detector's AP.
            Without it, whatever needs a reference (Drop, H, its ceiling, relative AP_r) is left
            out.
        restricted: Report the restricted protocol too.
        fast_eval: Match and accumulate with faster-coco-eval, whose numbers are pycocotools' and
            which takes a fraction of the time; ``None`` uses it where it is installed (``pip
            install mmforget[fast-eval]``).
        **kwargs: Those of CocoMetric, all of them.

    Attributes:
        base: The loaded detector's AP as plain JSON types, or ``None`` if not known::

                {'per_class': {name: AP}, 'per_class_AP50': {name: AP50},
                 'full': {'AP': mean, 'AP50': mean},
                 'restricted': {'task_1': {'classes': [name, ...], 'AP_f': ..., 'AP_r': ...,
                                           'AP_o': ..., 'AP50_f': ..., ...}, ...},
                 'segm': {the same of masks, where they are scored}}

        last: The scores of the last evaluation after a task; ``None`` after a base pass.

    Raises:
        ValueError: ``task`` or ``base`` is given without a scenario, a scenario with a
            ``metric`` that has no ``'bbox'``, ``task`` is not one of the scenario's, ``base``
            does not hold what it must.
        ImportError: ``fast_eval=True`` without faster-coco-eval.
    """

    def __init__(
        self,
        *args: Any,
        scenario: Mapping[str, Any] | None = None,
        task: int | None = None,
        base: str | None = None,
        restricted: bool = True,
        fast_eval: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # CocoMetric hands a float or a list on as it is; COCOeval compares with an array.
        self.iou_thrs = np.atleast_1d(np.asarray(self.iou_thrs, dtype=float))
        self.restricted = restricted
        self.fast_eval = _use_fast_eval(fast_eval)
        self.base: dict[str, Any] | None = None
        self.last: ForgettingScores | None = None
        self._scenario_config: Mapping[str, Any] | None = None
        self._request_index = task
        self._scenario: ForgettingScenario | None = None
        self._task: ForgettingTask | None = None
        self._warned = False

        if scenario is None:
            if task is not None or base is not None:
                raise ValueError(
                    f'The metric got task={task!r} and base={base!r}, but no scenario to which '
                    'they belong; give scenario=dict(tasks=[[...], ...]) as well.'
                )
            return
        if 'tasks' not in scenario:
            raise ValueError(
                f'The scenario of the metric has the keys {sorted(scenario)}; it needs '
                '"tasks", a list of lists of class names.'
            )
        self._scenario_config = scenario
        if task is not None and not 0 <= task < len(scenario['tasks']):
            raise ValueError(
                f'task={task} is not one of the {len(scenario["tasks"])} tasks of the scenario; '
                'tasks are counted from 0.'
            )
        self._check_arguments()
        if base is not None:
            self.base = _read_base(base)

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the dataset; the evaluator sets it before the first batch."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta
        # Before the first batch: a mistake must not cost an inference pass.
        self._match_scenario()

    def begin(self, scenario: ForgettingScenario, base: dict | None = None) -> None:
        """Puts the metric into a loop's hands; replaces its own ``scenario`` argument.

        Args:
            scenario: The scenario that the loop runs.
            base: :attr:`base` of an earlier run of the same scenario; ``None`` keeps what the
                metric knows already.

        Raises:
            ValueError: The scenario does not fit the data set or the annotation file, ``base``
                does not fit the scenario, or the metric's arguments leave nothing to score.
        """
        self._scenario_config = None
        self._scenario = scenario
        self._task = None
        self.last = None
        self._check_arguments()
        if base is not None:
            self.base = base
        self._match_scenario()

    def set_task(self, task: ForgettingTask | None) -> None:
        """Says what the next evaluations measure.

        Args:
            task: The task just done; ``None`` for the loaded detector, whose AP becomes
                :attr:`base`.

        Raises:
            RuntimeError: :meth:`begin` was not called.
            ValueError: The task is not one of the scenario.
        """
        if self._scenario is None:
            raise RuntimeError('ForgettingCocoMetric.set_task was called before begin.')
        if task is not None and task not in self._scenario.tasks:
            raise ValueError(f'{task} is not a task of the scenario given to begin.')
        self._task = task
        self.last = None

    def row(self) -> dict[str, Any]:
        """The last evaluation after a task, for its row in the results file."""
        row = _of_row(self.last)
        return row | {'segm': _of_row(self.last.segm)} if self.last.segm else row

    def evaluate(self, size: int) -> dict:
        """As BaseMetric's, with :attr:`base` and :attr:`last` made known to every process."""
        metrics = super().evaluate(size)
        known = [self.base, self.last]
        broadcast_object_list(known)
        self.base, self.last = known
        return metrics

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The metrics from what ``process`` collected.

        Args:
            results: (ground truth, prediction) of each image.

        Returns:
            CocoMetric's keys, then AP_f, AP_r, AP_o, drop, H, H_ceiling, AP_r_relative and their
            AP50 variants, then the same under ``restricted/``; of masks all of it under ``segm/``.
            What is undefined is left out.
        """
        self._match_scenario()
        if self._scenario is None or self.format_only:
            return super().compute_metrics(results)
        metrics: dict[str, float] = OrderedDict()
        asked = self.metrics
        self.metrics = [name for name in asked if name not in _RESULTS]
        try:
            if self.metrics:
                metrics.update(super().compute_metrics(results))
        finally:
            self.metrics = asked

        matched = {kind: self._match(results, kind) for kind in _RESULTS if kind in self.metrics}
        for kind, coco_eval in matched.items():
            metrics.update(self._usual_metrics(coco_eval, kind))
        if self._task is None:
            self.base = self._measure_base(matched['bbox'])
            if 'segm' in matched:
                self.base['segm'] = self._measure_base(matched['segm'])
            self.last = None
            MMLogger.get_current_instance().info(
                'Reference of the loaded detector: AP {}, AP50 {}.'.format(
                    *(_text(self.base['full'][ap]) for ap in ('AP', 'AP50'))
                )
            )
        else:
            self.last = self._measure_task(self._task, matched['bbox'], self.base)
            self._log(self._task, self.last)
            if 'segm' in matched:
                base = (self.base or {}).get('segm')
                self.last.segm = self._measure_task(self._task, matched['segm'], base)
                self._log(self._task, self.last.segm, ' of masks')
            metrics.update(_flat(self.last))
        return metrics

    def _check_arguments(self) -> None:
        """Raises where the arguments of CocoMetric leave no boxes to score."""
        if 'bbox' not in self.metrics:
            raise ValueError(
                f"Forgetting is measured on boxes: metric={self.metrics} needs 'bbox' in it."
            )
        if len(self.proposal_nums) < 3:
            raise ValueError(
                f'proposal_nums={self.proposal_nums}: the COCO summary needs three numbers.'
            )
        if self.format_only and self._scenario_config is None:
            raise ValueError(
                'format_only=True writes detections and measures nothing; a loop cannot score '
                'its tasks with it.'
            )

    def _match_scenario(self) -> None:
        """Builds the scenario if it came by config, and checks that everything fits together."""
        classes = tuple((self._dataset_meta or {}).get('classes') or ())
        if not classes:
            return
        if self._scenario_config is not None:
            self._scenario = ForgettingScenario.from_config(self._scenario_config, classes)
            index = -1 if self._request_index is None else self._request_index
            self._task = self._scenario.tasks[index]
        scenario = self._scenario
        if scenario is None:
            return
        if scenario.classes != classes:
            names = sorted(set(scenario.classes) ^ set(classes))
            what = f'only one of them has {", ".join(names)}' if names else 'their order differs'
            raise ValueError(
                f'The scenario and the data set under evaluation have different classes: {what}. '
                "Both need the detector's full label map, in its order."
            )
        if self._coco_api is not None:
            self._category_ids()
        if self.base is not None:
            _check_base(self.base, scenario)

    def _category_ids(self) -> dict[str, int]:
        """Category id by class name.

        By name, not by position: labels follow the annotation file's order of categories.
        """
        assert self._scenario is not None
        ids = {category['name']: cat_id for cat_id, category in self._coco_api.cats.items()}
        missing = [name for name in self._scenario.classes if name not in ids]
        if missing:
            raise ValueError(
                f'The annotation file has no category for the classes {", ".join(missing)} of '
                f'the scenario; it has {", ".join(ids)}.'
            )
        return {name: ids[name] for name in self._scenario.classes}

    def _match(self, results: list, kind: str) -> COCOeval:
        """Matches the boxes or masks to those of the objects, once, for all protocols."""
        gts, preds = zip(*results, strict=True)
        if self._coco_api is None:
            with tempfile.TemporaryDirectory() as folder, quiet():
                prefix = self.outfile_prefix or str(Path(folder) / 'results')
                self._coco_api = COCO(self.gt_to_coco_json(gts, prefix))
        ids = self._category_ids()
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        if self.outfile_prefix:
            self.results2json(preds, self.outfile_prefix)
        return evaluate_detections(
            self._coco_api,
            detection_index(self._coco_api, _RESULTS[kind](preds, self.cat_ids)),
            list(ids.values()),
            self.img_ids,
            self.proposal_nums,
            self.iou_thrs,
            self._evaluator(),
            kind,
        )

    def _evaluator(self) -> type[COCOeval]:
        """The class that matches."""
        if getattr(self, 'use_mp_eval', False):
            # Not in MMDetection 3.1.
            from mmdet.datasets.api_wrappers import COCOevalMP

            return COCOevalMP
        # VOC's images are known by names, which the C++ code does not take.
        numbered = all(isinstance(image, int) for image in self.img_ids or ())
        return FastCOCOeval if self.fast_eval and numbered else COCOeval

    def _usual_metrics(self, coco_eval: COCOeval, kind: str) -> dict[str, float]:
        """What CocoMetric reports on boxes or masks, under its keys and rounded as it does."""
        items = _SUMMARY[:6] if self.metric_items is None else self.metric_items
        unknown = [item for item in items if item not in _SUMMARY]
        if unknown:
            raise KeyError(f'metric_items names {unknown}; known are {list(_SUMMARY)}.')
        logger = MMLogger.get_current_instance()
        with quiet() as printed:
            coco_eval.summarize()
        logger.info(f'Evaluating {kind}...\n{printed.getvalue()}')
        stats = dict(zip(_SUMMARY, coco_eval.stats, strict=True))
        metrics = {f'{kind}_{item}': round(float(stats[item]), 3) for item in items}
        if self.classwise:
            columns = {
                'mAP': category_ap(coco_eval),
                'mAP_50': category_ap(coco_eval, iou_thr=0.5),
                'mAP_75': category_ap(coco_eval, iou_thr=0.75),
                'mAP_s': category_ap(coco_eval, area='small'),
                'mAP_m': category_ap(coco_eval, area='medium'),
                'mAP_l': category_ap(coco_eval, area='large'),
            }
            rows = []
            for name, cat_id in self._category_ids().items():
                values = [column[cat_id] for column in columns.values()]
                rows.append([name, *map(_text, values)])
                if values[0] is not None:
                    metrics[f'{name}_precision'] = round(values[0], 3)
            logger.info('\n' + AsciiTable([['category', *columns], *rows]).table)
        return metrics

    def _class_ap(self, coco_eval: COCOeval) -> tuple[ClassAP, ClassAP]:
        """AP and AP50 by class name, on all images."""
        found = per_class_ap(coco_eval)
        ids = self._category_ids()
        return (
            {name: found.ap[cat_id] for name, cat_id in ids.items()},
            {name: found.ap50[cat_id] for name, cat_id in ids.items()},
        )

    def _restricted_means(
        self, task: ForgettingTask, coco_eval: COCOeval
    ) -> dict[str, float | None]:
        """The means of a task's sets, each set on the images that show it."""
        ids = self._category_ids()
        means: dict[str, float | None] = {}
        for letter, names in scored_sets(task).items():
            found = restricted_ap(coco_eval, [ids[name] for name in names])
            for ap, values in (('AP', found.ap), ('AP50', found.ap50)):
                means[f'{ap}_{letter}'] = mean_ap({n: values[ids[n]] for n in names}, names)
        return means

    def _measure_base(self, coco_eval: COCOeval) -> dict[str, Any]:
        assert self._scenario is not None
        class_ap, class_ap50 = self._class_ap(coco_eval)
        restricted = {}
        if self.restricted:
            for task in self._scenario.tasks:
                means = self._restricted_means(task, coco_eval)
                restricted[task.name] = {'classes': list(task.classes), **means}
        return {
            'per_class': dict(class_ap),
            'per_class_AP50': dict(class_ap50),
            'full': {
                'AP': mean_ap(class_ap, class_ap),
                'AP50': mean_ap(class_ap50, class_ap50),
            },
            'restricted': restricted,
        }

    def _measure_task(
        self, task: ForgettingTask, coco_eval: COCOeval, base: Mapping[str, Any] | None
    ) -> ForgettingScores:
        class_ap, class_ap50 = self._class_ap(coco_eval)
        before: ClassAP = base['per_class'] if base else dict.fromkeys(class_ap)
        before50: ClassAP = base['per_class_AP50'] if base else dict.fromkeys(class_ap50)
        restricted = None
        reference = base['restricted'].get(task.name) if base else None
        if self.restricted:
            restricted = protocol_result(self._restricted_means(task, coco_eval), reference)
        self._warn_without(base, reference)
        return ForgettingScores(
            task=task.name,
            full=protocol_result(
                set_means(task, class_ap, class_ap50),
                set_means(task, before, before50) if base else None,
            ),
            restricted=restricted,
            per_class={name: [before[name], ap] for name, ap in class_ap.items()},
            per_class_AP50={name: [before50[name], ap] for name, ap in class_ap50.items()},
        )

    def _warn_without(self, base: dict | None, reference: dict | None) -> None:
        """Warns once if Drop and H cannot be given."""
        if self._warned or (base and (reference or not self.restricted)):
            return
        self._warned = True
        where = 'of the restricted protocol ' if base else ''
        MMLogger.get_current_instance().warning(
            f"Drop, H and relative AP_r {where}are left out: the loaded detector's AP is not "
            'known. Give the metric base=<path of the forgetting.json that a forgetting run '
            'wrote into its work_dir>.'
        )

    def _log(self, task: ForgettingTask, scores: ForgettingScores, of: str = '') -> None:
        """Logs the scores and a table of all classes: forget set, old set, retain set."""
        head = ['class', 'role', 'AP before', 'AP after', 'AP50 before', 'AP50 after']
        sets = class_sets(task)
        rows = [
            [name, role, *map(_text, scores.per_class[name] + scores.per_class_AP50[name])]
            for role in ('f', 'o', 'r')
            for name in sets[role]
        ]
        full = asdict(scores.full)
        restricted = asdict(scores.restricted) if scores.restricted else dict.fromkeys(full)
        shown = [key for key in full if task.missing or '_m' not in key]
        summary = [[key, _text(full[key]), _text(restricted[key])] for key in shown]
        MMLogger.get_current_instance().info(
            f'Forgetting{of} after {task.name} '
            '(role f: to forget, o: forgotten earlier, r: retained)'
            f'\n{AsciiTable([head, *rows]).table}'
            f'\n{AsciiTable([["score", "full", "restricted"], *summary]).table}'
        )


def _of_row(scores: ForgettingScores) -> dict[str, Any]:
    return {
        'full': asdict(scores.full),
        'restricted': asdict(scores.restricted) if scores.restricted else {},
        'per_class': {name: list(pair) for name, pair in scores.per_class.items()},
    }


def _use_fast_eval(asked: bool | None) -> bool:
    installed = fast_eval_installed()
    if asked and not installed:
        raise ImportError(
            'ForgettingCocoMetric got fast_eval=True, but faster-coco-eval is not installed. '
            'Install it (pip install faster-coco-eval), or leave fast_eval out.'
        )
    return installed if asked is None else asked


def _text(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _flat(scores: ForgettingScores) -> dict[str, float]:
    """The defined scores under their log keys."""
    metrics = dict(asdict(scores.full))
    if scores.restricted is not None:
        metrics |= {f'restricted/{key}': v for key, v in asdict(scores.restricted).items()}
    flat = {key: float(value) for key, value in metrics.items() if value is not None}
    if scores.segm is not None:
        flat |= {f'segm/{key}': value for key, value in _flat(scores.segm).items()}
    return flat


def _read_base(path: str) -> dict[str, Any]:
    """The ``base`` block of a ``forgetting.json``."""
    content = json.loads(Path(path).read_text(encoding='utf-8'))
    base = content.get('base') if isinstance(content, dict) else None
    if not base:
        raise ValueError(f'{path} has no "base" block; expected the forgetting.json of a run.')
    return base


def _check_base(base: Mapping[str, Any], scenario: ForgettingScenario) -> None:
    """Raises ValueError if the references were not measured for this scenario."""
    for block in ('per_class', 'per_class_AP50'):
        missing = [name for name in scenario.classes if name not in base.get(block, {})]
        if missing:
            raise ValueError(
                f'The base reference has no {block} for the classes {", ".join(missing)}; it was '
                'measured with another label map.'
            )
    for task in scenario.tasks:
        reference = base.get('restricted', {}).get(task.name)
        if reference is not None and set(reference['classes']) != set(task.classes):
            raise ValueError(
                f'The base reference was measured for another scenario: its {task.name} forgets '
                f'{", ".join(reference["classes"])}, here it forgets {", ".join(task.classes)}.'
            )
