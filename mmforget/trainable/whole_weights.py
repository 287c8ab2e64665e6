"""Fine-tuning of whole weights: all of them, or all but the heads."""

import re
from collections.abc import Sequence

from torch import Tensor, nn

from mmforget.adapters import plain_heads
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable.base import TrainablePart


class WholeWeights(TrainablePart):
    """Every parameter moves that is not frozen: what baselines do (spec C).

    What the detector's own config freezes stays frozen (a backbone's first stages).

    Args:
        frozen: ``'heads'``: what MMDetection calls heads and holds no attention, as in the authors'
            baselines; or regexes that match whole paths of parameters; ``()``: none.
    """

    def __init__(self, frozen: str | Sequence[str] = 'heads') -> None:
        self.frozen = frozen
        self._parameters: dict[str, nn.Parameter] = {}
        self._stilled: list[nn.Parameter] = []

    def check(self, model: nn.Module, scenario: ForgettingScenario) -> None:
        names = [name for name, _ in model.named_parameters()]
        if self.frozen != 'heads':
            for pattern in _patterns(self.frozen):
                if not any(re.fullmatch(pattern, name) for name in names):
                    raise ValueError(
                        f'frozen={self.frozen!r}: {pattern!r} matches no parameter. Give a regex '
                        f'that matches whole names, such as {names[0]!r}.'
                    )
        if not self.moving(model):
            raise ValueError(
                f'frozen={self.frozen!r} freezes all {len(names)} parameters, so nothing can move.'
            )

    def moving(self, model: nn.Module) -> list[str]:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if self.frozen == 'heads':
            heads = plain_heads(model)
            return [name for name in trained if name.split('.')[0] not in heads]
        patterns = _patterns(self.frozen)
        return [n for n in trained if not any(re.fullmatch(p, n) for p in patterns)]

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        names = self.moving(model)
        everything = dict(model.named_parameters())
        self._parameters = {name: everything[name] for name in names}
        own = {id(p) for p in self._parameters.values()}
        self._stilled = [p for p in everything.values() if p.requires_grad and id(p) not in own]
        for parameter in self._stilled:
            parameter.requires_grad_(False)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def weights(self) -> dict[str, Tensor]:
        return dict(self._parameters)

    def fold(self, model: nn.Module) -> None:
        for parameter in self._stilled:
            parameter.requires_grad_(True)
        self._parameters, self._stilled = {}, []


def _patterns(frozen: str | Sequence[str]) -> list[str]:
    return [frozen] if isinstance(frozen, str) else list(frozen)
