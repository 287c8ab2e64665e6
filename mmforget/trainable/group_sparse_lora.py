"""Group-sparse LoRA as a trainable part (arXiv 2403.11530, section 4)."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmforget.adapters import (
    AdapterGroup,
    AdapterState,
    LowRankLayer,
    adapted,
    adapter_state,
    check_injection,
    group_norms,
    inject,
    make_groups,
    remove,
    remove_one,
    updated_weight,
)
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable.base import TrainablePart, drop_from_optimizer
from mmforget.trainable.sparsity import GroupPenalty, Sparsity, TrialPlan, build_sparsity


class GroupSparseLoRA(TrainablePart):
    """Adapters in groups; a sparsity decides which groups live.

    Args:
        rank: Rank of every adapter.
        alpha: Numerator of the scale alpha / rank; the paper's detection runs use 1 with rank 8.
        targets: See :func:`mmforget.adapters.find_targets`.
        group_by: ``'block'`` (the paper), ``'stage'``, ``'adapter'`` or ``'matrix'``.
        sparsity: A number is the paper's α; a dict is the config of a sparsity; ``None`` keeps
            every group.
        within: Path of the part of the detector whose layers count, such as ``'backbone'``.
        init: ``'lora'``: B = 0, so that a task begins with the detector as it is. ``'authors'``:
            what their detection code does (spec B.1): in the first task A and B are Xavier noise,
            later A is Kaiming noise with a = √50 and B = 0.

    Raises:
        ValueError: ``init`` is neither, or the sparsity's config does not fit.
    """

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 1.0,
        targets: str | Sequence[str] = 'ffn',
        group_by: str = 'block',
        sparsity: float | dict[str, Any] | Sparsity | None = None,
        within: str | None = None,
        init: str = 'lora',
    ) -> None:
        if init not in ('lora', 'authors'):
            raise ValueError(
                f"GroupSparseLoRA got init={init!r}; expected 'lora' (B = 0), or 'authors' for "
                'what their detection code does.'
            )
        if isinstance(sparsity, (int, float)):
            sparsity = GroupPenalty(sparsity)
        elif isinstance(sparsity, dict):
            sparsity = build_sparsity(sparsity)
        self.rank = rank
        self.alpha = alpha
        self.targets = targets
        self.within = within
        self.group_by = group_by
        self.init = init
        self.sparsity = sparsity or Sparsity()
        self.model: nn.Module | None = None
        self.adapters: dict[str, LowRankLayer] = {}
        self.groups: dict[str, AdapterGroup] = {}
        self.group_names: list[str] = []

    def check(self, model: nn.Module, scenario: ForgettingScenario) -> None:
        groups = self._groups_on_copies(model)
        for task in scenario.tasks:
            self.sparsity.before_task(groups, task, seed=0)

    def groups_of(self, model: nn.Module) -> list[str]:
        return list(self._groups_on_copies(model))

    def _groups_on_copies(self, model: nn.Module) -> dict[str, AdapterGroup]:
        """Groups of adapters on copies: an adapter freezes the weight that it is given."""
        layers = check_injection(model, self.targets, self.rank, self.within)
        adapters = {
            name: adapted(copy.deepcopy(layer), self.rank, self.alpha)
            for name, layer in layers.items()
        }
        return make_groups(adapters, self.group_by, model)

    def layers(self, model: nn.Module) -> list[str]:
        return list(check_injection(model, self.targets, self.rank, self.within))

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        self.model, self._task_and_seed = model, (task, seed)
        self.adapters = inject(model, self.targets, self.rank, self.alpha, seed, self.within)
        self.groups = make_groups(self.adapters, self.group_by, model)
        self.group_names = list(self.groups)
        if self.init == 'authors':
            _draw_as_the_authors(self.adapters, task.index == 0, seed)
        self.prune(self.sparsity.before_task(self.groups, task, seed))

    def parameters(self) -> list[nn.Parameter]:
        return [p for a in self.adapters.values() for p in (a.lora_A, a.lora_B)]

    def moving(self, model: nn.Module) -> list[str]:
        return [f'{name}.weight' for name in self.layers(model)]

    def weights(self) -> dict[str, Tensor]:
        return {
            f'{name}.weight': updated_weight(a.weight, a.lora_A, a.lora_B, a.scaling)
            for name, a in self.adapters.items()
        }

    def penalty(self, step: int) -> Tensor | None:
        return self.sparsity.penalty(self.groups, step)

    def after_step(self, optimizer: Optimizer, step: int, max_steps: int) -> None:
        dead = self.sparsity.after_step(self.groups, optimizer, step, max_steps)
        if dead:
            before = self.parameters()
            self.prune(dead)
            gone = {id(p) for p in before} - {id(p) for p in self.parameters()}
            # Other parts may have parameters there.
            known = [p for group in optimizer.param_groups for p in group['params']]
            drop_from_optimizer(optimizer, [p for p in known if id(p) not in gone])

    @property
    def optimizers(self) -> tuple[str, ...]:
        return self.sparsity.optimizers

    @property
    def ranking_batches(self) -> int:
        return self.sparsity.ranking_batches

    def ranked_parameters(self) -> dict[str, list[nn.Parameter]]:
        return {name: group.effect() for name, group in self.groups.items()}

    def rank_groups(self, forget: dict[str, Tensor], retain: dict[str, Tensor]) -> dict[str, float]:
        ranking = self.sparsity.rank(forget, retain)
        self.prune(ranking.dead)
        return ranking.scores

    @property
    def trial(self) -> TrialPlan | None:
        return self.sparsity.trial

    def restart(self, names: Sequence[str]) -> None:
        assert self.model is not None
        self.prune(list(self.groups))
        self.inject(self.model, *self._task_and_seed)
        self.prune([name for name in self.groups if name not in names])

    def trials_suffice(self, gains: dict[str, float]) -> bool:
        return self.sparsity.trials_suffice(gains)

    def choose_groups(self, gains: dict[str, float]) -> None:
        dead = self.sparsity.choose(gains).dead
        self.restart([name for name in gains if name not in dead])

    def prune(self, names: Sequence[str]) -> None:
        """Turns the layers of dead groups into the plain ones again; what they held is dropped."""
        assert self.model is not None
        for name in names:
            group = self.groups.pop(name)
            for adapter, _, _ in group.members:
                # With groups of single matrices the other one may have gone already.
                if adapter in self.adapters:
                    remove_one(self.model, adapter, fold=False)
                    del self.adapters[adapter]
        alive = {
            n for n, g in self.groups.items() if any(a in self.adapters for a, *_ in g.members)
        }
        self.groups = {n: g for n, g in self.groups.items() if n in alive}

    def group_norms(self) -> dict[str, float]:
        norms = group_norms(list(self.groups.values()), 'ba').tolist() if self.groups else []
        alive = dict(zip(self.groups, norms, strict=True))
        return {name: alive.get(name, 0.0) for name in self.group_names}

    def structure(self) -> dict[str, Any]:
        return {'alive': list(self.groups), 'sparsity': self.sparsity.state_dict()}

    def restore(
        self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict[str, Any]
    ) -> None:
        self.inject(model, task, seed)
        self.prune([name for name in self.groups if name not in structure['alive']])
        self.sparsity.load_state_dict(structure['sparsity'])

    def adapter_state(self) -> dict[str, AdapterState]:
        return adapter_state(self.adapters)

    def fold(self, model: nn.Module) -> None:
        remove(model, self.adapters, fold=True)
        self.adapters, self.groups = {}, {}


@torch.no_grad()
def _draw_as_the_authors(adapters: Mapping[str, LowRankLayer], first: bool, seed: int) -> None:
    """Spec B.1: their transformer's initialiser reaches the adapters in the first task."""
    generator = torch.Generator().manual_seed(seed)
    for adapter in adapters.values():
        for matrix in (adapter.lora_A, adapter.lora_B) if first else (adapter.lora_A,):
            drawn = torch.empty(matrix.shape, dtype=matrix.dtype)
            if first:
                nn.init.xavier_uniform_(drawn, generator=generator)
            else:
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(50), generator=generator)
            matrix.copy_(drawn)
