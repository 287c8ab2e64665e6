"""Fits the ordinary ``param_scheduler`` configs to a task's budget in steps."""

import copy
from collections.abc import Sequence
from typing import Any

_POSITIONS = ('begin', 'end', 'T_max', 'step_size', 'total_iters')


def fit_schedulers(
    schedulers: dict[str, Any] | Sequence[dict[str, Any]] | None, max_steps: int
) -> list[dict[str, Any]]:
    """Returns scheduler configs that count steps and end with the task.

    Schedulers that count epochs are stretched, all by one factor, so that the last of them ends
    with the task: a MultiStepLR with a milestone at epoch 40 of 50 drops at 80 % of the steps.
    Schedulers that count iterations keep their positions; whatever lies beyond the budget is cut
    to it, and an ``end`` or ``T_max`` that is missing is filled in.

    Args:
        schedulers: The config key ``param_scheduler``.
        max_steps: Steps per task.
    """
    if schedulers is None:
        return []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    configs = [copy.deepcopy(dict(s)) for s in schedulers]
    epochs = max((_last_epoch(c) for c in configs if c.get('by_epoch', True)), default=0)
    fitted = []
    for config in configs:
        if config.get('by_epoch', True):
            _stretch(config, max_steps / epochs if epochs else 1.0)
        config['by_epoch'] = False
        config.pop('convert_to_iter_based', None)
        begin = config.get('begin', 0)
        if begin >= max_steps:
            continue
        end = min(config.get('end', max_steps), max_steps)
        # A schedule made for another length ends with the task, not before or after it.
        if 'CosineAnnealing' in config['type']:
            end = max_steps
            config['T_max'] = end - begin
        config['end'] = max(end, begin + 1)
        fitted.append(config)
    return fitted


def keep_base_values(
    schedulers: Sequence[Any], before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]
) -> None:
    """Lets schedulers forget the optimiser's groups that are gone.

    MMEngine's schedulers know a group's base value by its place.

    Args:
        schedulers: Built ones.
        before: The optimiser's groups that the schedulers know.
        now: Those that are left, in the same order.
    """
    if len(now) == len(before):
        return
    left = {id(group) for group in now}
    places = [place for place, group in enumerate(before) if id(group) in left]
    for scheduler in schedulers:
        scheduler.base_values = [scheduler.base_values[place] for place in places]


def _last_epoch(config: dict[str, Any]) -> int:
    candidates = [config.get('end'), config.get('T_max'), *config.get('milestones', [])]
    return max((c for c in candidates if c is not None), default=0)


def _stretch(config: dict[str, Any], factor: float) -> None:
    for key in _POSITIONS:
        if config.get(key) is not None:
            config[key] = max(round(config[key] * factor), 0 if key == 'begin' else 1)
    if 'milestones' in config:
        config['milestones'] = [max(round(m * factor), 1) for m in config['milestones']]
