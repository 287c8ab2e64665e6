"""How long all tasks still take."""

import time
from typing import Any

from mmengine.hooks import Hook, IterTimerHook
from mmengine.runner import Runner

from mmforget.structures import ForgettingTask


class ProgressHook(Hook):
    """Estimates the time to the end of the last task; registered by the loop itself.

    IterTimerHook knows steps alone. What lies between the steps of two tasks (folding, saving,
    evaluation, ranking or trying groups) is counted here as well: the steps still due at the mean
    time of a step, and a pause of the length of the last one after each task still due. The first
    pause known is the one before the first step.

    Its priority puts it behind IterTimerHook, whose ``eta`` it replaces, and before LoggerHook.
    """

    priority = 'NORMAL'

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._pause = 0.0
        self._since = 0.0

    def before_train(self, runner: Runner) -> None:
        self._steps, self._seconds, self._pause = 0, 0.0, 0.0
        self._since = time.perf_counter()

    def before_forgetting_task(self, runner: Runner, task: ForgettingTask) -> None:
        now = time.perf_counter()
        self._pause, self._since = now - self._since, now
        for hook in runner.hooks:
            if isinstance(hook, IterTimerHook):
                hook.before_train_epoch(runner)  # Or the pause would count as loading data.

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        now = time.perf_counter()
        self._steps += 1
        self._seconds += now - self._since
        self._since = now
        loop = runner.train_loop
        tasks = len(loop.scenario.tasks) - loop.task_index
        steps = sum(loop.task_steps[loop.task_index :]) - loop.task_step
        eta = steps * self._seconds / self._steps + tasks * self._pause
        runner.message_hub.update_info('eta', eta)
