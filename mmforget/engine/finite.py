"""A step that went to NaN or infinity stops the run before it reaches a file."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_HELP = (
    'Lower the learning rate or the forget weight, or set optim_wrapper.clip_grad, and start anew '
    'in another work dir. The last checkpoint (resume.pth) is untouched and finite, and so are the '
    'finished tasks; --resume with optim_wrapper.clip_grad set goes on from it.'
)
# What scipy's Hungarian matching says of a cost that is NaN or infinite.
_UNMATCHABLE = ('invalid numeric entries', 'cost matrix is infeasible')


def on_host(log_vars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A step's losses as scalars in the host's memory, in one transfer.

    Whoever looks at the losses after it, check or log, does not wait for the device once more.

    Args:
        log_vars: Name -> scalar.

    Returns:
        The same without their graph; where dtypes differ, in the widest.
    """
    device = next(iter(log_vars.values())).device
    scalars = [value.detach().to(device, non_blocking=True) for value in log_vars.values()]
    return dict(zip(log_vars, torch.stack(scalars).cpu().unbind(), strict=True))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no entry is NaN or infinite; one fused call, and one wait for the device."""
    tensors = [tensor.detach() for tensor in tensors if tensor.numel()]
    if not tensors:
        return True
    return bool(torch.stack(torch._foreach_norm(tensors, torch.inf)).isfinite().all())


def check_finite(total: Tensor, log_vars: Mapping[str, float], task: str, step: int) -> None:
    """Stops before a broken step reaches the weights.

    Args:
        total: The objective, a scalar.
        log_vars: Its terms by name.
        task: Name of the task.
        step: Steps done in this task.

    Raises:
        FloatingPointError: The objective is not finite; the message names the terms.
    """
    if torch.isfinite(total):
        return
    terms = {k: torch.as_tensor(v).detach() for k, v in log_vars.items() if k != 'loss'}
    broken = [f'{k}={float(v):.4g}' for k, v in terms.items() if not torch.isfinite(v).all()]
    sound = [f'{k}={float(v):.4g}' for k, v in terms.items() if torch.isfinite(v).all()]
    raise FloatingPointError(
        f'The objective is {float(total.detach())} in {task}, step {step}: '
        f'{", ".join(broken) or "the sum"} (finite: {", ".join(sound) or "none"}). Expected finite '
        f'losses. {_HELP}'
    )


@contextmanager
def matching_explained(model: nn.Module, task: str, step: int) -> Iterator[None]:
    """Turns the matcher's error over predictions that are not finite into a clear one.

    Set prediction matches them to objects before there is a loss to look at.

    Args:
        model: The detector.
        task: Name of the task.
        step: Steps done in this task.

    Raises:
        FloatingPointError: In place of the matcher's ValueError; the message names the weights.
    """
    try:
        yield
    except ValueError as error:
        if not any(text in str(error) for text in _UNMATCHABLE):
            raise
        raise FloatingPointError(
            f'The predictions are not finite in {task}, step {step}, so that no loss can be '
            f'computed: they cannot be matched to objects. Expected finite weights; not finite: '
            f'{_broken_weights(model) or "none, the activations overflowed"}. {_HELP}'
        ) from error


def check_weights(model: nn.Module, task: str, step: int) -> None:
    """Stops before weights that a step has broken are written over good ones.

    A finite loss may have a gradient that is not.

    Args:
        model: The detector; what it trains is looked at.
        task: Name of the task.
        step: Steps done in this task.

    Raises:
        FloatingPointError: A trainable weight is not finite.
    """
    if all_finite(p for p in model.parameters() if p.requires_grad):
        return
    raise FloatingPointError(
        f'After step {step} of {task} weights are not finite: '
        f'{_broken_weights(model, trainable_only=True)}. The losses were, so the gradient must '
        f'have overflowed; expected finite weights. {_HELP}'
    )


def _broken_weights(model: nn.Module, trainable_only: bool = False, shown: int = 3) -> str:
    names = [
        name
        for name, parameter in model.named_parameters()
        if (parameter.requires_grad or not trainable_only) and not parameter.isfinite().all()
    ]
    more = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more
