"""Terms that objectives are put together from."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmforget.structures import StreamOutput

# Losses of proposals, which name no class.
_PROPOSALS = ('enc_', 'rpn_')


def is_class_loss(name: str) -> bool:
    """Whether a loss of MMDetection tells the detector's classes apart."""
    return name.endswith('loss_cls') and not name.startswith(_PROPOSALS)


def flat(name: str) -> str:
    """``d0.loss_cls`` -> ``d0_cls``: only the summed terms may carry the word ``loss``."""
    return name.replace('loss_', '').replace('.', '_')


def detection_terms(
    losses: Mapping[str, Tensor], stream: str, weight: float = 1.0
) -> dict[str, Tensor]:
    """The detector's own losses of one stream, each as a term of the objective.

    None with weight 0: zero times what is not finite would be no number.
    """
    if not weight:
        return {}
    return {f'loss_{stream}_{flat(name)}': weight * value for name, value in losses.items()}


def logits_with_teacher(output: StreamOutput) -> tuple[Tensor, Tensor]:
    """Logits of the student and of the teacher, both (B, Q, C)."""
    assert output.teacher is not None
    return output.logits, output.teacher.logits


def squared_difference(output: StreamOutput, columns: Sequence[int] | None = None) -> Tensor:
    """‖z_S − z_T‖² of the class logits, summed over queries and classes, mean over images.

    Args:
        output: With the teacher's logits.
        columns: The labels whose logits count; ``None``: all, the background's as well.
    """
    student, teacher = logits_with_teacher(output)
    if columns is not None:
        student, teacher = student[..., columns], teacher[..., columns]
    return (student - teacher).square().sum() / len(student)


def distance(output: StreamOutput, axis: str = 'classes') -> Tensor:
    """Mean of ‖z_S − z_T‖₂ along an axis of the class logits.

    Args:
        output: With the teacher's logits.
        axis: ``'classes'``, or ``'queries'`` as in the authors' detection code.
    """
    student, teacher = logits_with_teacher(output)
    # Where both agree the root has no gradient.
    squares = (student - teacher).square().sum(dim=_dim(axis))
    return torch.where(squares > 0, squares.clamp(min=1e-20).sqrt(), squares).mean()


def divergence(
    output: StreamOutput,
    temperature: float,
    axis: str = 'classes',
    columns: Sequence[int] | None = None,
) -> Tensor:
    """T²·KL(teacher ‖ student), summed over an image's queries, mean over images.

    Along the classes a softmax is one distribution of a query; sigmoids are one for each class,
    whose divergences are added up. Along the queries it is always a softmax, as in the authors'
    detection code.

    Args:
        output: With the teacher's logits.
        temperature: T, which softens both.
        axis: ``'classes'`` or ``'queries'``.
        columns: The labels whose logits count; ``None``: all.
    """
    student, teacher = (x / temperature for x in logits_with_teacher(output))
    if columns is not None:
        student, teacher = student[..., columns], teacher[..., columns]
    if output.sigmoid and axis == 'classes':
        whole = bernoulli_divergence(student, teacher).sum()
    else:
        dim = _dim(axis)
        whole = F.kl_div(
            F.log_softmax(student, dim), F.log_softmax(teacher, dim), reduction='sum',
            log_target=True,
        )  # fmt: skip
    return temperature**2 * whole / len(student)


def bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(σ(teacher) ‖ σ(student)) of each logit."""
    target = torch.sigmoid(teacher)
    entropy = F.binary_cross_entropy_with_logits(teacher, target, reduction='none')
    return F.binary_cross_entropy_with_logits(student, target, reduction='none') - entropy


def check_axis(axis: str, owner: str) -> str:
    """The axis.

    Raises:
        ValueError: It is none.
    """
    if axis not in ('classes', 'queries'):
        raise ValueError(
            f"{owner} got axis={axis!r}; expected 'classes', or 'queries' as in the authors' "
            'detection code.'
        )
    return axis


def check_weights(owner: str, **weights: float) -> None:
    """Raises where a weight is no number or negative.

    Raises:
        ValueError: It names the weight.
    """
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ValueError(f'{owner} got {name}={value!r}; expected a number, at least 0.')


def _dim(axis: str) -> int:
    return -1 if axis == 'classes' else 1
