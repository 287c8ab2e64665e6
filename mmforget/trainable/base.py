"""The contract of a trainable part: which parameters may move during a task."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from mmforget.adapters import AdapterState, save_adapters
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.trainable.sparsity import TrialPlan


class TrainablePart:
    """What may move. Everything else is frozen to the bit, buffers included.

    Attributes:
        group_names: All groups, dead or alive; empty without groups.
    """

    group_names: Sequence[str] = ()

    def check(self, model: nn.Module, scenario: ForgettingScenario) -> None:
        """Called before any work: raises what ``inject`` would raise in one of the tasks.

        Args:
            model: The plain detector, which stays as it is.
            scenario: All tasks.
        """

    def groups_of(self, model: nn.Module) -> list[str]:
        """Names of the groups that the part would have in a plain detector."""
        return []

    @property
    def trial_groups(self) -> Sequence[str]:
        """The groups that ``trial`` is about, from the image upwards."""
        return self.group_names if self.trial is not None else ()

    def layers(self, model: nn.Module) -> list[str]:
        """Paths of the layers of the plain detector that the part would replace."""
        return []

    def inject(self, model: nn.Module, task: ForgettingTask, seed: int) -> None:
        """Freezes the model and makes this part trainable; the outputs must not change.

        Args:
            model: The plain detector, changed in place.
            task: The task that begins.
            seed: Decides every random draw of this task's initialisation.
        """
        raise NotImplementedError

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimiser may move now."""
        raise NotImplementedError

    def moving(self, model: nn.Module) -> list[str]:
        """Paths of the plain detector's parameters that this part will change, before injection."""
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """What of ``moving`` can still change, with gradient; W + s·BA of adapted layers."""
        raise NotImplementedError

    def penalty(self, step: int) -> Tensor | None:
        """A scalar to add to the objective, if any."""
        return None

    def after_step(self, optimizer: Optimizer, step: int, max_steps: int) -> None:
        """Called after each optimiser step: proximal steps, masks, pruning.

        Args:
            optimizer: The task's optimiser; whatever leaves the part must leave it, too.
            step: Steps done in this task, from 1.
            max_steps: The task's budget.
        """

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Types of optimiser that the part can work with; empty for all."""
        return ()

    @property
    def ranking_batches(self) -> int:
        """Batches of gradients wanted before a task's first step; 0 without a ranking pass."""
        return 0

    def ranked_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Group -> the parameters whose gradients ``rank_groups`` wants."""
        return {}

    def rank_groups(self, forget: dict[str, Tensor], retain: dict[str, Tensor]) -> dict[str, float]:
        """Prunes what the gradients of both streams speak against.

        Args:
            forget: Group -> gradients of the forget losses, (batches, size).
            retain: The same of the retain losses.

        Returns:
            Group -> score, for the log.
        """
        raise NotImplementedError

    @property
    def trial(self) -> TrialPlan | None:
        """How each group is to be tried alone before a task's first step, if at all."""
        return None

    def restart(self, names: Sequence[str]) -> None:
        """Starts the task's part anew, from zero and with these groups alone."""
        raise NotImplementedError

    def trials_suffice(self, gains: dict[str, float]) -> bool:
        """Whether the trials so far, from the output downwards, make further ones pointless."""
        return False

    def choose_groups(self, gains: dict[str, float]) -> None:
        """Starts anew with the groups for which the trials speak.

        Args:
            gains: Group -> how far the objective fell when the group was trained alone.
        """
        raise NotImplementedError

    def group_norms(self) -> dict[str, float]:
        """Name -> norm of each group's effect, 0 when pruned; empty without groups."""
        return {}

    def structure(self) -> dict[str, Any]:
        """What ``restore`` needs to rebuild this part before its tensors are loaded."""
        return {}

    def restore(
        self, model: nn.Module, task: ForgettingTask, seed: int, structure: dict[str, Any]
    ) -> None:
        """Injects and rebuilds what was alive when ``structure`` was written."""
        self.inject(model, task, seed)

    def adapter_state(self) -> dict[str, AdapterState]:
        """Path -> low-rank update as it is now; empty for a part without adapters."""
        return {}

    def save(self, folder: str, base: str) -> None:
        """Writes the adapters of the task, if the part has any, before they are folded.

        Args:
            folder: Where to.
            base: The checkpoint that the run began with.
        """
        if self.group_names:
            save_adapters(folder, self.adapter_state(), base, {'groups': self.group_norms()})

    def fold(self, model: nn.Module) -> None:
        """Turns the model into a plain detector again, with what was learnt in its weights."""
        raise NotImplementedError


def drop_from_optimizer(optimizer: Optimizer, kept: list[nn.Parameter]) -> None:
    """Takes every parameter that is not in ``kept`` out of the optimiser, state included."""
    identities = {id(p) for p in kept}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if id(parameter) not in identities:
                optimizer.state.pop(parameter, None)
        group['params'] = [p for p in group['params'] if id(p) in identities]
    optimizer.param_groups[:] = [g for g in optimizer.param_groups if g['params']]
