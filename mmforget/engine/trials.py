"""Short trials of single groups: what each is worth before a task begins."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from mmforget.engine.finite import all_finite, matching_explained
from mmforget.engine.randomness import seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.trainable import TrialPlan


def group_gains(
    step: ForgettingStep,
    build_optimizer: Callable[[], OptimWrapper],
    batches: Sequence[Mapping[str, Any]],
    plan: TrialPlan,
    seed: int,
    task: int,
) -> dict[str, float]:
    """How far the objective falls when a group is trained alone for a few steps.

    Measured on batches that the trial has not trained on. Every trial starts with fresh adapters,
    so that none leaves anything behind, and sees the same batches. The groups are tried from the
    output downwards, until the trainable part has seen enough.

    Args:
        step: The task's step before its first update.
        build_optimizer: A new optimiser over what is trainable now.
        batches: ``plan.steps`` batches to train on, then ``plan.held_out`` to measure on.
        plan: The trials' lengths.
        seed: The run's seed.
        task: The task's index.

    Returns:
        Group -> fall of the objective; minus infinity where the trial was not finite.

    Raises:
        ValueError: There are fewer batches than the plan asks for.
    """
    if len(batches) < plan.steps + plan.held_out:
        raise ValueError(
            f'Trials of {plan.steps} steps and {plan.held_out} held-out batches got '
            f'{len(batches)} batches. Raise max_steps, or shorten the trials.'
        )
    batches = [_first_images(batch, plan.images) for batch in batches]
    train, held_out = batches[: plan.steps], batches[plan.steps :]
    gains: dict[str, float] = {}
    # A fresh group does nothing, so this is the same for all whose step has the same terms.
    before: dict[frozenset[str], float] = {}
    for name in reversed(step.trainable.trial_groups):
        step.trainable.restart([name])
        optimizer = build_optimizer()
        if not before:
            with optimizer.optim_context(step):
                for number in range(len(batches)):
                    step.look_ahead(batches[number:])
            value, terms = _objective(step, optimizer, held_out)
            before[terms] = value
        gains[name] = -math.inf
        with suppress(FloatingPointError):  # It broke the predictions, which cannot be matched.
            if _train(step, optimizer, train, plan.lr_factor, seed, task):
                after, terms = _objective(step, optimizer, held_out)
                if terms not in before:  # Losses that no weight of this group can change.
                    step.trainable.restart([name])
                    before[terms], _ = _objective(step, optimizer, held_out)
                gain = before[terms] - after
                gains[name] = gain if math.isfinite(gain) else -math.inf
        if step.trainable.trials_suffice(gains):
            break
    return gains


def _first_images(batch: Mapping[str, Any], images: int | None) -> dict[str, Any]:
    return {
        stream: {key: values[:images] for key, values in data.items()}
        for stream, data in batch.items()
    }


def _train(
    step: ForgettingStep,
    optimizer: OptimWrapper,
    batches: Sequence[Mapping[str, Any]],
    lr_factor: float,
    seed: int,
    task: int,
) -> bool:
    """Trains what lives; whether all of it stayed finite."""
    step.train()
    for group in optimizer.param_groups:
        # A warm-up has lowered it already, and nothing raises it in a trial.
        group['lr'] = group.get('initial_lr', group['lr']) * lr_factor
    for number, batch in enumerate(batches):
        seed_step(seed, task, number)
        with optimizer.optim_context(step), matching_explained(step.detector, 'a trial', number):
            losses = step(batch, number)
        optimizer.update_params(step.detector.parse_losses(losses)[0])
        if not all_finite(step.trainable.parameters()):
            return False
    return True


@torch.no_grad()
def _objective(
    step: ForgettingStep, optimizer: OptimWrapper, batches: Sequence[Mapping[str, Any]]
) -> tuple[float, frozenset[str]]:
    """Mean over batches, without dropout: it would differ from group to group. And its terms."""
    step.train()
    # The detector itself stays in training mode, in which it gives what its losses need.
    for child in step.detector.children():
        child.eval()
    with optimizer.optim_context(step), matching_explained(step.detector, 'a trial', 0):
        losses = [step(batch, 0) for batch in batches]
    totals = [step.detector.parse_losses(own)[0] for own in losses]
    return float(torch.stack(totals).double().mean()), frozenset().union(*losses)
