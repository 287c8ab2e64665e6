"""The contract of a tap: losses, logits, boxes, embeddings and matches out of one forward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput


@dataclass(frozen=True)
class StreamOptions:
    """What a method wants of one stream.

    Attributes:
        matched_only: The class loss counts matched queries only; all others get weight zero.
        auxiliary: Losses of every decoder layer, not of the last one alone.
    """

    matched_only: bool = False
    auxiliary: bool = False


@dataclass(frozen=True)
class Stream:
    """Where one stream lies in the batch, and what is wanted of it."""

    images: slice
    options: StreamOptions


class Tap:
    """Reads one detector family. A subclass per family, registered under the detector's class.

    Args:
        detector: The detector that is read; the tap holds no parameter of its own.

    Attributes:
        fields: The fields of ``StreamOutput`` that the family can give.
    """

    fields: frozenset[str] = frozenset()

    def __init__(self, detector: nn.Module) -> None:
        self.detector = detector

    def trunk(self) -> list[nn.Module]:
        """Modules below the cut: without gradients while nothing in them is trained."""
        raise NotImplementedError

    def trunk_is_frozen(self) -> bool:
        """Whether no parameter of the trunk is trained."""
        return not any(p.requires_grad for m in self.trunk() for p in m.parameters())

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        """One forward for all streams.

        Args:
            inputs: The preprocessed batch of all streams, (B, 3, H, W).
            data_samples: One ``DetDataSample`` per image.
            streams: The part of the batch that belongs to each stream.

        Returns:
            One output per stream.
        """
        raise NotImplementedError


def build_tap(detector: nn.Module) -> Tap:
    """Finds the tap of the detector's class or of its nearest base class.

    Raises:
        TypeError: No tap is registered for the detector's family.
    """
    TAPS.import_from_location()
    for cls in type(detector).__mro__:
        tap = TAPS.module_dict.get(cls.__name__)
        if tap is not None:
            return tap(detector)
    raise TypeError(
        f'mmforget cannot read {type(detector).__name__} yet. It reads '
        f'{", ".join(sorted(TAPS.module_dict))} and their subclasses. Register a Tap for it with '
        f"@TAPS.register_module(name='{type(detector).__name__}')."
    )
