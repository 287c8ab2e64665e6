"""Scores in the middle of tasks: AP against steps."""

import json
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmforget.engine.results import write_atomically
from mmforget.registry import HOOKS
from mmforget.structures import ForgettingTask, ResultsRow

FILE_NAME = 'curves.json'


@HOOKS.register_module()
class ForgettingCurvesHook(Hook):
    """Measures forgetting every so many steps of a task, into ``work_dir/curves.json``.

    The file holds ``{'schema': 1, 'points': [{'task', 'step', 'full': scores}, ...]}``, the end of
    each task included. The run goes on to the bit as it would without. Nothing is chosen by what is
    measured here.

    Args:
        interval: Steps from one measurement to the next.

    Raises:
        ValueError: ``interval`` is not positive.
        RuntimeError: The training loop measures no forgetting.
    """

    priority = 'LOW'

    def __init__(self, interval: int) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(
                f'ForgettingCurvesHook got interval={interval!r}; expected a positive whole number '
                'of steps.'
            )
        self.interval = interval
        self._points: list[dict[str, Any]] = []

    def before_train(self, runner: Runner) -> None:
        if getattr(runner.train_loop, 'metric', None) is None:
            raise RuntimeError(
                'ForgettingCurvesHook has nothing to measure with; expected a '
                'ContinualForgettingLoop, and a metric of forgetting in val_evaluator.'
            )
        loop, path = runner.train_loop, Path(runner.work_dir) / FILE_NAME
        here = (loop.task_index + 1, loop.task_step)
        if here > (1, 0) and path.is_file():
            known = json.loads(path.read_text())['points']
            # What came after the checkpoint is done again.
            self._points = [p for p in known if (p['task'], p['step']) <= here]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        loop = runner.train_loop
        step = loop.task_step
        if step % self.interval == 0 and step < loop.max_steps:
            self._note(runner, loop.task_index + 1, step, loop.measure_now()['full'])

    def after_forgetting_evaluation(
        self, runner: Runner, task: ForgettingTask, row: ResultsRow
    ) -> None:
        self._note(runner, task.index + 1, row.steps, row.full)

    def _note(self, runner: Runner, task: int, step: int, scores: dict[str, Any]) -> None:
        self._points.append({'task': task, 'step': step, 'full': dict(scores)})
        document = {'schema': 1, 'points': self._points}
        path = Path(runner.work_dir) / FILE_NAME
        write_atomically(path, json.dumps(document, indent=1) + '\n')
