"""Learning with recoverable forgetting, without what would recover."""

from torch import Tensor
from torch.nn.functional import normalize

from mmforget.methods.base import FORGET
from mmforget.methods.lwf import LwF
from mmforget.methods.terms import check_weights
from mmforget.registry import METHODS
from mmforget.structures import StreamOutput
from mmforget.taps import StreamOptions


@METHODS.register_module()
class LIRF(LwF):
    """L = (1 − a)·L(D̃_f) − w_a·AT(D_f) + w_k·a·KD(D_f) + w_r·L(D_r) (ECCV 2022; spec C).

    The lower half of a transformer moves, the upper half stays, by ``FullFineTuningHook(frozen=)``.
    AT is the mean squared difference between student and teacher of where, halfway up, the tokens
    are large; KD lets retained classes be answered for as by the teacher. The method's second half
    network, in which the owner deposits what was forgotten, is no part of the model that forgets,
    and is not built. (The authors take the first |F| columns for the forgotten ones, spec E.2.)

    Only of classifiers: a detector's tap gives no tokens halfway.

    Args:
        share: a; 0.1.
        attention_weight: w_a; 300.
        distillation_weight: w_k; 10.
        retain_weight: w_r; 5.
        temperature: T of KD; 10.
        labels: Of the forget set, see :class:`~mmforget.methods.relabelling.Relabelling`.
        teacher: ``'loaded'``, ``'previous'`` or ``'untrained'``.

    Raises:
        ValueError: ``share`` lies outside [0, 1], a weight is negative, ``temperature`` is not
            positive, or ``labels`` is unknown.
    """

    needs = frozenset({'losses', 'logits', 'halfway'})

    def __init__(
        self,
        share: float = 0.1,
        attention_weight: float = 300.0,
        distillation_weight: float = 10.0,
        retain_weight: float = 5.0,
        temperature: float = 10.0,
        labels: str = 'random',
        teacher: str = 'loaded',
    ) -> None:
        check_weights('LIRF', share=share, attention_weight=attention_weight)
        if share > 1:
            raise ValueError(f'LIRF got share={share!r}; expected a number in [0, 1].')
        super().__init__(
            strength=distillation_weight * share,
            retain_weight=retain_weight,
            temperature=temperature,
            labels=labels,
            forget_weight=1 - share,
            teacher=teacher,
        )
        self.attention_weight = attention_weight

    def stream_options(self, stream: str) -> StreamOptions:
        own = super().stream_options(stream)
        return StreamOptions(background=own.background, halfway=stream == FORGET)

    def losses(self, forget: StreamOutput, retain: StreamOutput) -> dict[str, Tensor]:
        here, there = attention(forget.halfway), attention(forget.teacher.halfway)
        away = (here - there).square().mean()
        return {
            **super().losses(forget, retain),
            'loss_attention': -self.attention_weight * away,
        }


def attention(tokens: Tensor) -> Tensor:
    """Where tokens (B, N, D) are large: their mean squares, of length 1 for each image, (B, N)."""
    return normalize(tokens.square().mean(dim=-1), dim=-1)
