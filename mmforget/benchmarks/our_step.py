"""A step as mmforget's loop makes it, its savings switched on one after another."""

import math
import time
from collections.abc import Sequence

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmforget.benchmarks.adapter_libraries import ALPHA, start_alike
from mmforget.benchmarks.measurement import Action, Detail
from mmforget.benchmarks.recipe_step import Batch, Recipe
from mmforget.engine.finite import check_finite
from mmforget.engine.randomness import seed_step
from mmforget.engine.step import ForgettingStep
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import TrunkCache, build_tap
from mmforget.trainable import GroupSparseLoRA


class OurStep(Action):
    """One optimiser step on the next of a few batches.

    Args:
        detector: The plain detector.
        batches: Taken in turn.
        recipe: The numbers.
        rank: Of every adapter.
        alive: The groups that live, as after selection and without penalty; ``None`` for all of
            them, under the penalty.
        cache: For what the frozen trunk gives; ``None`` computes it every time.
        dtype: Below float32 the forward runs under autocast.
    """

    def __init__(
        self,
        detector: nn.Module,
        batches: Sequence[Batch],
        recipe: Recipe,
        rank: int,
        alive: Sequence[str] | None = None,
        cache: TrunkCache | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.detector = detector
        self.batches = batches
        self.cache = cache
        self.dtype = dtype
        sparsity = {'type': 'ChosenGroups', 'groups': list(alive or ())}
        part = GroupSparseLoRA(rank, ALPHA, sparsity=sparsity if alive else recipe.sparsity)
        part.inject(detector, ForgettingTask(0, ('forgotten',), ('retained',), ()), seed=0)
        start_alike({name: (a.lora_A, a.lora_B) for name, a in part.adapters.items()})
        method = GSLoRA(recipe.forget_weight, recipe.bound)
        self.step = ForgettingStep(detector, build_tap(detector, cache), method, part)
        self.step.train()
        self.optimizer = OptimWrapper(
            torch.optim.AdamW(
                part.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
            ),
            clip_grad={'max_norm': recipe.clip},
        )
        self.trainable = sum(p.numel() for p in part.parameters())
        self.steps = 0
        self.first_loss = math.nan
        self.first_seconds = math.nan

    @property
    def cache_bytes(self) -> int:
        return self.cache.bytes if self.cache is not None else 0

    def warm(self) -> None:
        start = time.perf_counter()
        self()
        self.first_seconds = time.perf_counter() - start
        for _ in self.batches[1:] if self.cache is not None else ():
            self()
        # All variants take the same batches in the same order.
        self.steps = 1

    def __call__(self) -> None:
        batch = self.batches[self.steps % len(self.batches)]
        seed_step(0, 0, self.steps)
        device = next(self.detector.parameters()).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.step(batch, self.steps)
        total, log_vars = self.detector.parse_losses(losses)
        check_finite(total, log_vars, 'the benchmark', self.steps)
        self.optimizer.update_params(total)
        if not self.steps:
            self.first_loss = float(total.detach())
        self.steps += 1
        self.step.trainable.after_step(self.optimizer.optimizer, self.steps, 10**6)

    def details(self) -> dict[str, Detail]:
        found: dict[str, Detail] = {'first loss': round(self.first_loss, 4)}
        if self.cache is not None:
            found['cold s'] = round(self.first_seconds, 4)
        return found
