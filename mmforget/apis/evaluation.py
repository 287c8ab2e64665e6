"""Measuring a detector that has forgotten classes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from mmforget.apis.forgetting_config import (
    build_evaluation_config,
    load_config,
    name_run,
    rest_trackers,
)
from mmforget.apis.request import ForgettingRequest
from mmforget.engine.results import read_results
from mmforget.evaluation import ForgettingCocoMetric
from mmforget.evaluation.forgetting_scores import ForgettingScores
from mmforget.models.checkpoint_fit import check_fit
from mmforget.structures import ForgettingScenario


def evaluate(
    config: str | Path | Config,
    checkpoint: str | Path,
    classes: Sequence[str] | Sequence[Sequence[str]] | None = None,
    *,
    base: str | Path | None = None,
    data_root: str | Path | None = None,
    split: str = 'val',
) -> ForgettingScores:
    """Measures how well classes were forgotten and the others kept.

    Args:
        config: As for ``forget``: the config the detector was trained with.
        checkpoint: The detector that has forgotten.
        classes: What it has forgotten: names, or a list per task, of which the last is AP_f and
            the earlier ones AP_o. ``None`` reads the tasks from ``base``, if that is a
            ``forgetting.json``, or else the names from a checkpoint that ``forget`` wrote; all of
            them count as AP_f then.
        base: What Drop, H and relative AP_r are measured against: the checkpoint before
            forgetting, or the ``forgetting.json`` of a run of the same tasks. Without it they are
            ``None``.
        data_root: Replaces the data root of the config.
        split: ``'val'`` or ``'test'``.

    Returns:
        ``full`` and ``restricted`` with AP_f, AP_r, AP_o, drop, H, ... (AP in 0..1), and AP before
        and after for each class.

    Raises:
        ValueError: The config has no such split, a class is unknown, or a checkpoint does not fit
            or does not say what it has forgotten.
        FileNotFoundError: A file is not there.
    """
    built = build_evaluation_config(load_config(config), split, data_root and str(data_root))
    content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    results = read_results(base) if base is not None and str(base).endswith('.json') else None
    if classes is None and results is not None:
        classes = [row['classes'] for row in results['tasks']]
    if classes is None:
        meta = content.get('meta', {}) if isinstance(content, Mapping) else {}
        classes = meta.get('forgotten')
        if not classes:
            raise ValueError(
                f'{checkpoint} does not say what it has forgotten; give classes=[...].'
            )
    request = ForgettingRequest(classes)
    request.check_classes(built.classes)
    scenario = ForgettingScenario.from_requests(request.tasks, built.classes)
    with tempfile.TemporaryDirectory() as folder:
        built.config.work_dir = folder
        name_run(built.config, 'evaluate')
        rest_trackers(built.config)
        runner = Runner.from_cfg(built.config)
        (metric,) = runner.val_loop.evaluator.metrics
        assert isinstance(metric, ForgettingCocoMetric)
        runner.call_hook('before_run')
        if results is not None:
            metric.begin(scenario, results['base'])
        else:
            metric.begin(scenario)
            if base is not None:
                before = CheckpointLoader.load_checkpoint(str(base), map_location='cpu')
                check_fit(runner.model, before, str(base))
                metric.set_task(None)
                runner.val_loop.run()
        check_fit(runner.model, content, str(checkpoint))
        metric.set_task(scenario.tasks[-1])
        runner.val_loop.run()
        return metric.last
