"""The contract of a tap: losses, logits, boxes, embeddings and matches out of one forward."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmforget.registry import TAPS
from mmforget.structures import StreamOutput
from mmforget.taps.stages import Stage, StageTensors
from mmforget.taps.trunk_cache import TrunkCache


@dataclass(frozen=True)
class StreamOptions:
    """What a method wants of one stream.

    Attributes:
        matched_only: The class loss counts matched queries only; all others get weight zero.
        true_class_only: Of a matched query, the class loss counts the score of its object's class
            only; of a softmax, that score against the background's. Implies ``matched_only``.
        log_odds: The class loss is minus the log-odds of a matched query's true class (a sigmoid's
            logit; of a softmax, its logit less the background's, of a classifier against all other
            classes), mean over queries, whatever loss the head was trained with. Asks for
            ``true_class_only``.
        bound: Where the class loss of each matched query stops growing, in units of the weighted
            loss; ``None``: nowhere. Asks for ``matched_only``.
        auxiliary: Losses of every decoder layer, not of the last one alone.
        losses: Whether losses are wanted at all, or predictions alone.
        halfway: Whether tokens halfway up are wanted.
        background: Matched queries are told that they are background, while their boxes are learnt
            as before; objects are matched by their own classes.

    Raises:
        ValueError: There is a bound for matched queries, but others count, too; background is to
            count by its true class; or log-odds are asked for of more than true classes.
    """

    matched_only: bool = False
    true_class_only: bool = False
    log_odds: bool = False
    bound: float | None = None
    auxiliary: bool = False
    background: bool = False
    losses: bool = True
    halfway: bool = False

    def __post_init__(self) -> None:
        if self.bound is not None and not (self.matched_only or self.true_class_only):
            raise ValueError(
                f'StreamOptions got bound={self.bound!r}, which holds for matched queries, but all '
                'count. Give matched_only=True or true_class_only=True with it.'
            )
        if self.log_odds and not self.true_class_only:
            raise ValueError(
                'StreamOptions got log_odds=True, which are those of true classes, but others '
                'count, too. Give true_class_only=True with it.'
            )
        if self.background and self.true_class_only:
            raise ValueError(
                'StreamOptions got background=True and true_class_only=True; of what is background '
                'no class is the true one. Give one of the two.'
            )


@dataclass(frozen=True)
class Stream:
    """Where one stream lies in the batch, and what is wanted of it."""

    images: slice
    options: StreamOptions


class Tap:
    """Reads one detector family. A subclass per family, registered under the detector's class.

    Args:
        detector: The detector that is read; the tap holds no parameter of its own.
        cache: Remembers what the frozen trunk gave for an image; ``None`` computes it anew.

    Attributes:
        fields: The fields of ``StreamOutput`` that the family can give.
        one_to_one: Whether an object is matched with one prediction, as of queries, or with many.
        leader: The tap of a student, for that of its teacher: images whose shape their company
            changes are padded where the student pads them.
    """

    fields: frozenset[str] = frozenset()
    one_to_one = False

    def __init__(self, detector: nn.Module, cache: TrunkCache | None = None) -> None:
        self.detector = detector
        self.cache = cache
        self.leader: Tap | None = None
        self._tensors = StageTensors(lambda: self.stages())

    def check(self, options: StreamOptions) -> None:
        """Called before any work: raises where the family cannot give what a method wants."""

    def stages(self) -> dict[str, Stage]:
        """Where the trunk may be cut: after each of these parts, from the image upwards."""
        raise NotImplementedError

    def frozen_stages(self) -> list[str]:
        """The leading stages in which nothing is trained: they need no gradient.

        Pruning the lowest groups makes this trunk grow upwards.
        """
        frozen = []
        for name, parameters in self._tensors.parameters().items():
            if any(parameter.requires_grad for parameter in parameters):
                break
            frozen.append(name)
        return frozen

    def trunk(self) -> list[nn.Module]:
        """The modules of the frozen stages; they belong in eval mode."""
        stages = self.stages()
        return [module for name in self.frozen_stages() for module in stages[name].modules]

    def sees_padding(self) -> bool:
        """Whether what comes out for an image depends on the shape its batch is padded to."""
        return True

    def remembering(self, batch_size: int | None = None) -> AbstractContextManager[None]:
        """While open, the detector's own forward answers from the cache as far as it can.

        For evaluation: what an untouched trunk gives for an image is the same after every task.
        What does not fit beside the entries of training is computed anew. With a cache that rounds,
        so does evaluation.

        Args:
            batch_size: Images in a batch that is not the last; ``None``: each batch for itself.
        """
        return nullcontext()

    def looks_ahead(self) -> bool:
        """Whether the trunk gains from seeing images of several batches at once."""
        return False

    def look_ahead(self, inputs: Tensor, data_samples: Sequence[Any]) -> list[bytes]:
        """Fills the cache with what the frozen stages give for images that will come.

        Only where ``looks_ahead``.

        Args:
            inputs: Preprocessed images, (N, 3, H, W).
            data_samples: One ``DetDataSample`` per image.

        Returns:
            What each image is known by.
        """
        raise NotImplementedError

    def remembers(self, image: bytes) -> bool:
        """Whether what the frozen stages give is kept for an image that was looked at."""
        raise NotImplementedError

    def class_rows(self) -> Tensor:
        """The weights of the layer that scores the classes of the last embeddings, (C, D).

        Raises:
            TypeError: The family has no single layer that does.
        """
        raise TypeError(
            f'{type(self).__name__} knows no layer of {type(self.detector).__name__} that scores '
            "the classes of single embeddings. Take other prototypes: prototypes='mean', where the "
            'detector gives embeddings.'
        )

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


def find_tap(detector: type) -> type[Tap] | None:
    """The tap of a detector's class or of its nearest base class, if there is one."""
    TAPS.import_from_location()
    taps = (TAPS.module_dict.get(cls.__name__) for cls in detector.__mro__)
    return next((tap for tap in taps if tap is not None), None)


def build_tap(detector: nn.Module, cache: TrunkCache | None = None) -> Tap:
    """Finds the tap of the detector's class or of its nearest base class.

    Args:
        detector: The plain detector.
        cache: For the outputs of the frozen trunk.

    Raises:
        TypeError: No tap is registered for the detector's family.
    """
    tap = find_tap(type(detector))
    if tap is not None:
        return tap(detector, cache)
    raise TypeError(
        f'mmforget cannot read {type(detector).__name__} yet. It reads '
        f'{", ".join(sorted(TAPS.module_dict))} and their subclasses. Register a Tap for it with '
        f"@TAPS.register_module(name='{type(detector).__name__}')."
    )
