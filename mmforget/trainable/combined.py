"""Several trainable parts at once, each with its own rank and sparsity."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from mmforget.adapters import AdapterState
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable.base import TrainablePart
from mmforget.trainable.sparsity import TrialPlan


class CombinedParts(TrainablePart):
    """Parts side by side, such as adapters in a backbone and others in a decoder.

    Args:
        parts: The parts, from the image upwards.

    Raises:
        ValueError: Their trials differ in more than the strength.
    """

    def __init__(self, parts: Sequence[TrainablePart]) -> None:
        self.parts = list(parts)
        plans = {part.trial for part in self.parts if part.trial is not None}
        if len(plans) > 1:
            raise ValueError(
                f'The trainable parts try their groups in {len(plans)} ways: '
                f'{", ".join(map(str, plans))}. Trials see the same batches: give them equal '
                'steps, held_out, lr_factor and images.'
            )

    @property
    def group_names(self) -> Sequence[str]:
        return [name for part in self.parts for name in part.group_names]

    @property
    def trial_groups(self) -> Sequence[str]:
        return [name for part in self.parts for name in part.trial_groups]

    def check(self, model: nn.Module, scenario: ForgettingScenario) -> None:
        owner: dict[str, int] = {}
        for index, part in enumerate(self.parts):
            part.check(model, scenario)
            for layer in part.layers(model):
                if layer in owner:
                    raise ValueError(
                        f'The trainable parts number {owner[layer] + 1} and {index + 1} both name '
                        f'the layer {layer!r}. Give each a part of the detector of its own, by '
                        "within='backbone' or by other targets."
                    )
                owner[layer] = index
        names = [name for part in self.parts for name in part.groups_of(model)]
        shared = sorted({name for name in names if names.count(name) > 1})
        if shared:
            raise ValueError(
                f'Two trainable parts have a group {shared[0]!r}: their layers lie in one block. '
                "Give them parts of the detector of their own by within=..., or group_by='adapter'."
            )

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        for part in self.parts:
            part.inject(model, task, seed)
        self._wake()

    def _wake(self) -> None:
        """Each part has frozen everything but itself."""
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for part in self.parts for parameter in part.parameters()]

    def moving(self, model: nn.Module) -> list[str]:
        return [name for part in self.parts for name in part.moving(model)]

    def weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for part in self.parts:
            weights |= part.weights()
        return weights

    def penalty(self, step: int) -> Tensor | None:
        penalties = [p for p in (part.penalty(step) for part in self.parts) if p is not None]
        return sum(penalties) if penalties else None

    def after_step(self, optimizer: Optimizer, step: int, max_steps: int) -> None:
        for part in self.parts:
            part.after_step(optimizer, step, max_steps)

    @property
    def optimizers(self) -> tuple[str, ...]:
        wanted = [set(part.optimizers) for part in self.parts if part.optimizers]
        return tuple(sorted(set.intersection(*wanted))) if wanted else ()

    @property
    def ranking_batches(self) -> int:
        return max(part.ranking_batches for part in self.parts)

    def ranked_parameters(self) -> dict[str, list[nn.Parameter]]:
        ranked: dict[str, list[nn.Parameter]] = {}
        for part in self.parts:
            ranked |= part.ranked_parameters()
        return ranked

    def rank_groups(self, forget: dict[str, Tensor], retain: dict[str, Tensor]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for part in self.parts:
            if part.ranking_batches:
                scores |= part.rank_groups(_own(part, forget), _own(part, retain))
        return scores

    @property
    def trial(self) -> TrialPlan | None:
        return next((part.trial for part in self.parts if part.trial is not None), None)

    def restart(self, names: Sequence[str]) -> None:
        for part in self.parts:
            part.restart([name for name in names if name in part.group_names])
        self._wake()

    def trials_suffice(self, gains: dict[str, float]) -> bool:
        of_parts = [(part, _own(part, gains)) for part in self.parts if part.trial is not None]
        return all(own and part.trials_suffice(own) for part, own in of_parts)

    def choose_groups(self, gains: dict[str, float]) -> None:
        for part in self.parts:
            if part.trial is not None:
                part.choose_groups(_own(part, gains))
            else:
                part.restart(part.group_names)
        self._wake()

    def group_norms(self) -> dict[str, float]:
        norms: dict[str, float] = {}
        for part in self.parts:
            norms |= part.group_norms()
        return norms

    def structure(self) -> dict[str, Any]:
        return {'parts': [part.structure() for part in self.parts]}

    def restore(
        self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict[str, Any]
    ) -> None:
        for part, own in zip(self.parts, structure['parts'], strict=True):
            part.restore(model, task, seed, own)
        self._wake()

    def adapter_state(self) -> dict[str, AdapterState]:
        state: dict[str, AdapterState] = {}
        for part in self.parts:
            state |= part.adapter_state()
        return state

    def fold(self, model: nn.Module) -> None:
        for part in self.parts:
            part.fold(model)


def _own(part: TrainablePart, by_group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_group.items() if name in part.group_names}
