"""Whether the parts of a run fit one another: said before any work, not in one of the tasks."""

from collections.abc import Mapping
from typing import Any

from mmengine.device import get_device

from mmforget.methods import FORGET, RETAIN, TEACHERS, ForgettingMethod
from mmforget.structures import ForgettingScenario
from mmforget.taps import Tap
from mmforget.trainable import TrainablePart


def check_method(method: ForgettingMethod, tap: Tap, scenario: ForgettingScenario) -> None:
    """Checks that the detector's family can give what the method reads.

    Raises:
        RuntimeError: The family lacks a field.
        TypeError: It cannot give a stream as the method wants it.
        ValueError: The method's arguments do not fit the tasks.
    """
    method.check(scenario)
    if method.teacher not in TEACHERS:
        raise ValueError(
            f'{type(method).__name__} got teacher={method.teacher!r}; expected one of '
            f'{", ".join(map(repr, TEACHERS))}.'
        )
    missing = method.needs - tap.fields
    if missing:
        raise RuntimeError(
            f'{type(method).__name__} needs {sorted(missing)}, which {type(tap).__name__} cannot '
            f'give for {type(tap.detector).__name__}.'
        )
    for stream in (FORGET, RETAIN):
        tap.check(method.stream_options(stream))


def check_budget(part: TrainablePart, max_steps: int) -> None:
    """Checks that trials of groups fit into a task.

    Raises:
        ValueError: They do not.
    """
    plan = part.trial
    if plan is not None and plan.steps + plan.held_out > max_steps:
        raise ValueError(
            f'Trials of {plan.steps} steps and {plan.held_out} held-out batches do not fit into '
            f'max_steps={max_steps}; expected at least {plan.steps + plan.held_out} steps. Raise '
            'max_steps, or shorten the trials (steps, held_out of the sparsity).'
        )


def check_trials(part: TrainablePart, method: ForgettingMethod) -> None:
    """Checks that what weighs groups by the objective meets one objective.

    Raises:
        ValueError: The method changes it from step to step.
    """
    weighs = part.trial is not None or part.ranking_batches
    if weighs and type(method).before_step is not ForgettingMethod.before_step:
        raise ValueError(
            f'The sparsity weighs groups by the objective before the first step, but '
            f"{type(method).__name__}'s changes from step to step. Take sparsity=3e-4, the group "
            'penalty, or another method.'
        )


def check_optimizer(part: TrainablePart, config: Mapping[str, Any]) -> None:
    """Checks that the trainable part can work with the optimiser.

    Args:
        part: The trainable part.
        config: The config of the optimiser's wrapper.

    Raises:
        ValueError: The part reads the state of another kind of optimiser.
        RuntimeError: Mixed precision without a GPU, which MMEngine does not offer.
    """
    if config.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise RuntimeError(
            "optim_wrapper.type is 'AmpOptimWrapper' (tools/train.py --amp), which needs a GPU: "
            "there is none here. Take 'OptimWrapper', or start without --amp."
        )
    kind = config.get('optimizer', {}).get('type')
    if part.optimizers and isinstance(kind, str) and kind not in part.optimizers:
        raise ValueError(
            f'optim_wrapper.optimizer has the type {kind!r}, but the sparsity reads the state of '
            f'{" or ".join(part.optimizers)}. Take one of these, or another sparsity.'
        )
