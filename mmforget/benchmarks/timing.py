"""Times variants side by side: alternating in one process, medians."""

import gc
import time
from collections.abc import Mapping

import torch

from mmforget.benchmarks.measurement import Action


def alternate(
    actions: Mapping[str, Action], repetitions: int, device: str
) -> dict[str, list[float]]:
    """Calls every action in turn, ``repetitions`` times, after each was warmed.

    Every second round goes backwards, so that no variant always follows the same other one: the
    machine's state (clock, memory, other programs) drifts over minutes.

    Args:
        actions: Name -> action.
        repetitions: Timed calls of each.
        device: ``'cpu'`` or ``'cuda'``; on a GPU each call is waited for.

    Returns:
        Name -> seconds of each call.
    """
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(repetitions):
        for name in names if round_ % 2 == 0 else reversed(names):
            seconds[name].append(timed(actions[name], device))
    return seconds


def timed(action: Action, device: str) -> float:
    """Seconds of one call."""
    # The collector's turn must not fall to a variant by chance.
    gc.collect()
    _wait(device)
    start = time.perf_counter()
    for _ in range(action.calls):
        action()
    _wait(device)
    return (time.perf_counter() - start) / action.calls


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()
