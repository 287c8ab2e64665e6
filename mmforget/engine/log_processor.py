"""Log lines that say which task they belong to."""

from typing import Any

from mmengine.runner import LogProcessor, Runner

from mmforget.registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class ForgettingLogProcessor(LogProcessor):
    """MMEngine's log processor, with the task's name and the step within the task.

    Means do not reach back into the task before, and what evaluation gives carries ``iter`` as
    what training gives does: W&B, which knows no step of MMEngine's, can plot both over it
    (``define_metric_cfg=[dict(name='*', step_metric='iter')]``).

    The loop puts it in the place of a plain LogProcessor by itself.

    Args:
        **kwargs: As LogProcessor; ``by_epoch`` is always False.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, 'by_epoch': False})

    @classmethod
    def like(cls, processor: LogProcessor) -> 'ForgettingLogProcessor':
        """One with the settings of a plain log processor."""
        new = cls(
            window_size=processor.window_size,
            num_digits=processor.num_digits,
            log_with_hierarchy=processor.log_with_hierarchy,
            mean_pattern=processor.mean_pattern.pattern,
        )
        # Checked already; a window of an epoch, which is the whole run here, would be refused.
        new.custom_cfg = processor.custom_cfg
        return new

    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        loop = _forgetting_loop(runner)
        window = self.window_size
        if loop is not None and mode == 'train':
            self.window_size = min(window, max(loop.task_step, 1))
        try:
            tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        finally:
            self.window_size = window
        return tag, _with_task(line, loop, mode)

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        tag, line = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        loop = _forgetting_loop(runner)
        if loop is not None and mode == 'val':
            tag['iter'] = loop.iter
        return tag, _with_task(line, loop, mode)


def _forgetting_loop(runner: Runner) -> Any:
    """The loop, if it is one that forgets; ``runner.train_loop`` would build it."""
    loop = runner._train_loop
    return loop if hasattr(loop, 'current_task') else None


def _with_task(line: str, loop: Any, mode: str) -> str:
    """``Iter(train) [12/24]  task_2 [4/8]  lr: ...`` out of ``Iter(train) [12/24]  lr: ...``."""
    if loop is None:
        return line
    # Not at the first two blanks: a step is padded to the width of the total, ``[  50/6000]``.
    header, separator, rest = line.partition(']  ')
    task = loop.current_task
    where = 'loaded detector' if task is None else task.name
    if mode == 'train':
        where += f' [{loop.task_step}/{loop.max_steps}]'
    return f'{header}]  {where}  {rest}' if separator else line
