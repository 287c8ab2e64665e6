"""Gradients of the two streams, apart: what a ranking of groups looks at."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmforget.engine.randomness import seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN


def stream_gradients(
    step: ForgettingStep, batches: Iterable[Mapping[str, Any]], seed: int, task: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of the forget and of the retain losses with respect to each ranked group.

    Nothing moves: no optimiser is involved and no gradient is left behind.

    Args:
        step: The task's step before its first update.
        batches: Batches of both streams.
        seed: The run's seed.
        task: The task's index.

    Returns:
        Two dicts, group -> (batches, size), forget first.

    Raises:
        ValueError: The method names no loss after one of the streams.
    """
    ranked = step.trainable.ranked_parameters()
    parameters = [p for group in ranked.values() for p in group]
    rows: dict[str, list[Tensor]] = {FORGET: [], RETAIN: []}
    for number, batch in enumerate(batches):
        seed_step(seed, task, number)
        losses = step(batch, 0)
        for stream in (FORGET, RETAIN):
            terms = [v for k, v in losses.items() if k.startswith(f'loss_{stream}')]
            if not terms:
                raise ValueError(
                    f'{type(step.method).__name__} gives no loss named loss_{stream}..., so '
                    'groups cannot be ranked by their streams. It gives '
                    f'{sorted(losses)}. Take a sparsity without a ranking pass.'
                )
            gradients = torch.autograd.grad(
                sum(terms), parameters, retain_graph=stream == FORGET, materialize_grads=True
            )
            rows[stream].append(torch.cat([g.flatten() for g in gradients]))
    return tuple(_split(torch.stack(rows[stream]), ranked) for stream in (FORGET, RETAIN))


def _split(rows: Tensor, ranked: Mapping[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    sizes = [sum(p.numel() for p in group) for group in ranked.values()]
    return dict(zip(ranked, rows.split(sizes, dim=1), strict=True))
