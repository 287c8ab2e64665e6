"""Which groups live: the paper's penalty, and selection with exact zeros."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from mmforget.adapters import AdapterGroup, group_penalty, proximal_step, zero_groups
from mmforget.adapters.foreach import frobenius_norms
from mmforget.structures import ForgettingTask


@dataclass(frozen=True)
class Ranking:
    """What a ranking pass found.

    Attributes:
        scores: Group -> score; higher is better.
        dead: The groups that do not live.
    """

    scores: dict[str, float]
    dead: list[str]


@dataclass(frozen=True)
class TrialPlan:
    """How each group is tried alone before a task's first step.

    Attributes:
        steps: Optimiser steps of a trial.
        held_out: Batches, of those that follow, on which the objective is measured.
        lr_factor: The learning rate in a trial, as a multiple of the run's.
        images: Images of each stream's batch that a trial sees; ``None`` for all.
    """

    steps: int
    held_out: int
    lr_factor: float
    images: int | None = None


class Sparsity:
    """Keeps every group. A subclass overrides what it needs.

    Attributes:
        ranking_batches: Batches of gradients that ``rank`` wants before a task's first step.
        trial: The trials whose gains ``choose`` wants before a task's first step.
        optimizers: Types of optimiser whose state it reads; empty if it reads none.
    """

    optimizers: tuple[str, ...] = ()
    ranking_batches: int = 0
    trial: TrialPlan | None = None

    def rank(self, forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]) -> Ranking:
        """Decides from gradients at the task's start which groups live.

        Args:
            forget: For each group the gradients of the forget losses with respect to its effect
                (B), one row per batch, (batches, size).
            retain: The same of the retain losses.
        """
        raise NotImplementedError

    def trials_suffice(self, gains: Mapping[str, float]) -> bool:
        """Whether the trials so far, from the output downwards, make further ones pointless."""
        return False

    def choose(self, gains: Mapping[str, float]) -> Ranking:
        """Decides from trials which groups live; a group that was not tried is dead.

        Args:
            gains: Group -> how far the objective fell when the group was trained alone.
        """
        raise NotImplementedError

    def before_task(
        self, groups: Mapping[str, AdapterGroup], task: ForgettingTask, seed: int
    ) -> list[str]:
        """Names of the groups that are dead from the start."""
        return []

    def penalty(self, groups: Mapping[str, AdapterGroup], step: int) -> Tensor | None:
        """A scalar to add to the objective at ``step`` (from 0), if any."""
        return None

    def after_step(
        self, groups: Mapping[str, AdapterGroup], optimizer: Optimizer, step: int, max_steps: int
    ) -> list[str]:
        """Called after step number ``step`` (from 1); names of the groups that are dead now."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """All that must survive a kill, as plain types."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""


class GroupPenalty(Sparsity):
    """The paper's form: α times the sum of the groups' norms (arXiv 2403.11530; spec B.2).

    It drives groups towards zero but, as a sub-gradient under Adam, never to zero: no group dies.

    Args:
        strength: α.
        kind: Norm of a group, see :meth:`mmforget.adapters.AdapterGroup.norm`; the paper's is
            ``'ab'``.
        warmup: Steps without penalty at the start of a task.
    """

    def __init__(self, strength: float, kind: str = 'ab', warmup: int = 0) -> None:
        _check_not_negative('GroupPenalty', strength=strength, warmup=warmup)
        self.strength = strength
        self.kind = kind
        self.warmup = warmup

    def penalty(self, groups: Mapping[str, AdapterGroup], step: int) -> Tensor | None:
        if step < self.warmup or not groups:
            return None
        return self.strength * group_penalty(groups, self.kind)


class GroupSelection(Sparsity):
    """The corrected form: groups are born at zero and must earn their life.

    The effect of a group (its B) starts at zero. After each step of a selection window, B is
    soft-thresholded in the optimiser's metric by ``strength`` times the pull on the strongest
    group, a group's pull being the norm of the objective's smoothed gradient with respect to its
    B. So a group grows only while its pull exceeds that share of the strongest one's; Adam, which
    moves every group at the same pace whatever its pull, is undone by the metric. When the window
    ends, groups at exact zero are pruned, and the others are trained on without any threshold, so
    that selection leaves no bias in their weights.

    Args:
        strength: Share of the strongest group's pull that a group needs, in [0, 1). 0 keeps all.
        window: Share of a task's steps in which the selection takes place, in (0, 1].
        warmup: Steps at the start of a task without threshold.
    """

    optimizers = ('Adam', 'AdamW')

    def __init__(self, strength: float = 0.5, window: float = 0.25, warmup: int = 0) -> None:
        _check_not_negative('GroupSelection', strength=strength, window=window, warmup=warmup)
        if strength >= 1 or not 0 < window <= 1:
            raise ValueError(
                f'GroupSelection got strength={strength!r}, window={window!r}; expected a '
                'strength in [0, 1) and a window in (0, 1].'
            )
        self.strength = strength
        self.window = window
        self.warmup = warmup

    def after_step(
        self, groups: Mapping[str, AdapterGroup], optimizer: Optimizer, step: int, max_steps: int
    ) -> list[str]:
        last = max(round(self.window * max_steps), self.warmup + 1)
        if step <= self.warmup or step > last or not groups:
            return []
        pulls = _pulls(list(groups.values()), optimizer)
        if pulls is None:
            return []
        needed = self.strength * pulls.norms.max()
        thresholds = pulls.learning_rates * needed / pulls.metrics.clamp(min=1e-30)
        proximal_step(list(groups.values()), thresholds)
        return zero_groups(groups) if step == last else []


class GroupRanking(Sparsity):
    """The corrected form with a ranking pass: a group lives if it forgets at a low price.

    Before a task's first step, gradients of both streams are taken on a few batches. To first
    order, moving a group's B along its mean forget gradient f by η forgets η‖f‖²; to second
    order, with the empirical Fisher matrix of the retain losses as their curvature, it costs
    ½η²E[(r·f)²], r being a batch's retain gradient. What one unit of forgetting costs is thus
    E[(r·f/‖f‖)²] / ‖f‖², and a group's score is the inverse: the power of the forgetting signal
    over that of the interference with what is kept. The power ‖f‖² is estimated without the bias
    that noise adds, from products of different batches. Groups below ``strength`` times the best
    score are dead: pruned before the first step, exactly zero, and never paid for.

    Args:
        strength: Share of the best group's score that a group needs, in [0, 1]. 0 keeps all.
        batches: Batches of both streams for the ranking, at least 2.
    """

    def __init__(self, strength: float = 0.5, batches: int = 8) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f'GroupRanking got strength={strength!r}; expected it in [0, 1].')
        if not isinstance(batches, int) or batches < 2:
            raise ValueError(f'GroupRanking got batches={batches!r}; expected at least 2.')
        self.strength = strength
        self.ranking_batches = batches

    def rank(self, forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]) -> Ranking:
        scores = {name: _signal_to_interference(forget[name], retain[name]) for name in forget}
        needed = self.strength * max(scores.values())
        return Ranking(scores, [name for name, score in scores.items() if score < needed])


def _signal_to_interference(forget: Tensor, retain: Tensor) -> float:
    """Power of the mean forget gradient over the retain gradients' power along it.

    Args:
        forget: (batches, size).
        retain: (batches, size).
    """
    forget, retain = forget.double(), retain.double()
    batches = len(forget)
    total = forget.sum(dim=0)
    # The mean over pairs of different batches: noise has no part in it.
    signal = (total.dot(total) - forget.square().sum()) / (batches * (batches - 1))
    if signal <= 0:
        return 0.0
    interference = (retain @ (total / total.norm())).square().mean()
    return float(signal / interference.clamp(min=1e-30))


class GroupTrial(Sparsity):
    """The corrected form with trials: a group lives if it serves the whole objective alone.

    Before a task's first step each group is trained alone for a few steps, from zero and on the
    same batches, and the fall of the objective (forgetting and keeping together) is measured on
    batches that follow. A group's score is this gain; groups below ``strength`` times the best
    gain are dead: pruned before the first step, exactly zero, and never paid for. Gradients at the
    start cannot tell groups apart so well: a group whose forgetting disturbs what is kept shows
    that only once it has moved, hence ``lr_factor``.

    Trials go from the output downwards, the cheapest first: below the lowest living group nothing
    is computed twice. With ``patience``, so many groups in a row below the strength end the search,
    and what lies deeper is dead untried. If no group lowers the objective, the trials say nothing
    and all groups live.

    Args:
        strength: Share of the best group's gain that a group needs, in [0, 1]. 0 keeps every
            group that does not raise the objective.
        steps: Optimiser steps of a trial.
        held_out: Batches on which the gain is measured.
        lr_factor: The learning rate in a trial, as a multiple of the run's.
        images: Images of each stream's batch that a trial sees, to save time; ``None`` for all.
        patience: Groups in a row that may fail before the search ends; ``None`` tries them all.
    """

    def __init__(
        self,
        strength: float = 0.7,
        steps: int = 8,
        held_out: int = 2,
        lr_factor: float = 2.0,
        images: int | None = None,
        patience: int | None = None,
    ) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f'GroupTrial got strength={strength!r}; expected it in [0, 1].')
        counts = {'steps': steps, 'held_out': held_out}
        optional = {'images': images, 'patience': patience}
        counts |= {name: value for name, value in optional.items() if value is not None}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'GroupTrial got {name}={value!r}; expected at least 1.')
        if not lr_factor > 0:
            raise ValueError(f'GroupTrial got lr_factor={lr_factor!r}; expected more than 0.')
        self.strength = strength
        self.patience = patience
        self.trial = TrialPlan(steps, held_out, lr_factor, images)

    def trials_suffice(self, gains: Mapping[str, float]) -> bool:
        best = max(gains.values())
        if self.patience is None or best <= 0:
            return False
        last = list(gains.values())[-self.patience :]
        return len(gains) > self.patience and max(last) < self.strength * best

    def choose(self, gains: Mapping[str, float]) -> Ranking:
        best = max(gains.values())
        if best <= 0:
            return Ranking(dict(gains), [])
        needed = self.strength * best
        return Ranking(dict(gains), [name for name, gain in gains.items() if gain < needed])


class ChosenGroups(Sparsity):
    """The user says which groups live: the same ones, or a list per task.

    Args:
        groups: Group names, or one list of names per task.
    """

    def __init__(self, groups: Sequence[str] | Sequence[Sequence[str]]) -> None:
        per_task = [groups] if groups and isinstance(groups[0], str) else groups
        self.groups = [list(names) for names in per_task]
        if not self.groups or not all(self.groups):
            raise ValueError(f'ChosenGroups got groups={groups!r}; expected at least one name.')

    def before_task(
        self, groups: Mapping[str, AdapterGroup], task: ForgettingTask, seed: int
    ) -> list[str]:
        chosen = _of_task(self.groups, task)
        unknown = [name for name in chosen if name not in groups]
        if unknown:
            raise ValueError(
                f'ChosenGroups names {unknown}, but the groups are: {", ".join(groups)}.'
            )
        return [name for name in groups if name not in chosen]


class RandomGroups(Sparsity):
    """A control: as many random groups as some selection kept, the others dead from the start.

    Args:
        number: Groups that live; one number, or one per task.
    """

    def __init__(self, number: int | Sequence[int]) -> None:
        self.numbers = [number] if isinstance(number, int) else list(number)
        if not self.numbers or min(self.numbers) < 1:
            raise ValueError(f'RandomGroups got number={number!r}; expected at least 1.')

    def before_task(
        self, groups: Mapping[str, AdapterGroup], task: ForgettingTask, seed: int
    ) -> list[str]:
        names = list(groups)
        number = _of_task(self.numbers, task)
        if number > len(names):
            raise ValueError(
                f'RandomGroups got number={number}, but there are {len(names)} groups.'
            )
        generator = np.random.default_rng(seed)
        alive = set(generator.choice(len(names), number, replace=False).tolist())
        return [name for index, name in enumerate(names) if index not in alive]


def _of_task(values: Sequence[Any], task: ForgettingTask) -> Any:
    """The value of a task, out of one for all or one for each."""
    if len(values) == 1:
        return values[0]
    if task.index >= len(values):
        raise ValueError(
            f'Got {len(values)} values for the tasks, but there is a task number '
            f'{task.index + 1}. Give one for all, or one for each.'
        )
    return values[task.index]


@dataclass(frozen=True)
class _Pulls:
    """Of each group, (groups,): what draws on it.

    Attributes:
        norms: Norm of its smoothed gradient.
        metrics: What the optimiser divides this gradient by.
        learning_rates: Its step size.
    """

    norms: Tensor
    metrics: Tensor
    learning_rates: Tensor


@torch.no_grad()
def _pulls(groups: Sequence[AdapterGroup], optimizer: Optimizer) -> _Pulls | None:
    """Reads Adam's moments of the groups' effects; None before its first step.

    Fused calls for all groups, without waiting for the device.
    """
    effects = [group.effect() for group in groups]
    parameters = [parameter for effect in effects for parameter in effect]
    options_of = {id(p): options for options in optimizer.param_groups for p in options['params']}
    options = [options_of[id(parameter)] for parameter in parameters]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    if all('betas' in option for option in options) and not any(states):
        return None  # Gradients are accumulated, or a scaler has skipped every step so far.
    if any('exp_avg_sq' not in state for state in states):
        raise TypeError(
            f'GroupSelection reads the moments of Adam or AdamW, but the optimiser is '
            f'{type(optimizer).__name__}. Use AdamW, or another sparsity.'
        )
    entries = [sum(parameter.numel() for parameter in effect) for effect in effects]
    # The mean square over a group is a sum over its matrices.
    shares = [1 / number for number, effect in zip(entries, effects, strict=True) for _ in effect]
    # In float64: one minus a beta close to one has few digits left.
    counts = torch.stack([torch.as_tensor(state['step']) for state in states]).double()
    betas = [option['betas'] for option in options]
    table = [[beta1 for beta1, _ in betas], [beta2 for _, beta2 in betas], shares]
    beta1, beta2, share = _on_device(table, counts.device)
    device = parameters[0].device
    first_scale = (1 / (1 - beta1**counts)).to(device, non_blocking=True)
    second_scale = (share / (1 - beta2**counts)).to(device, non_blocking=True)
    first = torch.stack(torch._foreach_norm([state['exp_avg'] for state in states]))
    # Squares are not negative: their sum is the 1-norm.
    second = torch.stack(torch._foreach_norm([state['exp_avg_sq'] for state in states], 1))
    sizes = [len(effect) for effect in effects]
    rates = [float(options_of[id(effect[-1])]['lr']) for effect in effects]
    return _Pulls(
        norms=_norms_of_parts(first * first_scale, sizes),
        metrics=_norms_of_parts((second * second_scale).sqrt(), sizes),
        learning_rates=_on_device(rates, device),
    )


def _norms_of_parts(values: Tensor, sizes: Sequence[int]) -> Tensor:
    return frobenius_norms([[part] for part in values.split(sizes)])


def _on_device(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """As float64, without waiting for the device."""
    return torch.tensor(numbers, dtype=torch.float64).to(device, non_blocking=True)


SPARSITIES: dict[str, type[Sparsity]] = {
    cls.__name__: cls
    for cls in (
        GroupPenalty,
        GroupSelection,
        GroupRanking,
        GroupTrial,
        ChosenGroups,
        RandomGroups,
    )
}


def build_sparsity(config: Mapping[str, Any]) -> Sparsity:
    """Builds a sparsity from ``dict(type='GroupSelection', ...)``.

    Raises:
        ValueError: The type is unknown or an argument does not exist.
    """
    arguments = dict(config)
    name = arguments.pop('type', None)
    if name not in SPARSITIES:
        raise ValueError(f'sparsity has the type {name!r}; expected one of {sorted(SPARSITIES)}.')
    known = inspect.signature(SPARSITIES[name]).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f'{name} has no argument {unknown}; it has {", ".join(known)}.')
    return SPARSITIES[name](**arguments)


def _check_not_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(
                f'{owner} got {name}={value!r}; expected a number that is not negative.'
            )
