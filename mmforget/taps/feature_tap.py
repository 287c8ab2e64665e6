"""What taps share that know a detector's features and its own loss, and nothing in between."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmforget.structures import StreamOutput
from mmforget.taps.base import Stream, StreamOptions, Tap
from mmforget.taps.class_loss import counting
from mmforget.taps.feature_trunk import FEATURES, FeatureTrunk
from mmforget.taps.own_shapes import features_as_batch, own_shapes
from mmforget.taps.replaced import replaced
from mmforget.taps.stages import Stage, StageMemory, at_once
from mmforget.taps.trunk_batch import TrunkBatch
from mmforget.taps.trunk_cache import Priority, TrunkCache


class FeatureTap(Tap):
    """Reads detectors whose loss is computed from the features of backbone and neck.

    Backbone and neck see both streams as one batch, below the first trained module from the cache.
    From there on the detector's own ``loss`` runs for each stream.
    """

    fields = frozenset({'losses', 'targets'})

    def __init__(self, detector: nn.Module, cache: TrunkCache | None = None) -> None:
        super().__init__(detector, cache)
        self._memory = StageMemory(cache, self.stages)
        self._features = FeatureTrunk(detector, self._memory)

    @abstractmethod
    def class_heads(self) -> list[nn.Module]:
        """The heads with a ``loss_cls`` that tells the detector's classes apart."""

    #: Whether the class loss of matched predictions alone is their mean.
    mean_over_matched = False

    def idle_branch(self) -> AbstractContextManager[None]:
        """While open, the detector leaves out losses that no trained weight can change.

        Asked only where features are frozen.
        """
        return nullcontext()

    def stages(self) -> dict[str, Stage]:
        return self._features.stages()

    def check(self, options: StreamOptions) -> None:
        edited = options.matched_only or options.true_class_only or options.background
        heads = self.class_heads() if edited else ()
        others = [h.loss_cls for h in heads if getattr(h.loss_cls, 'custom_cls_channels', False)]
        if others:
            raise TypeError(
                'matched_only, true_class_only and background need a score per class, but '
                f'{type(others[0]).__name__} of {type(self.detector).__name__} has scores of its '
                'own kind. Leave both out.'
            )

    def remembering(self, batch_size: int | None = None) -> AbstractContextManager[None]:
        return nullcontext() if self.cache is None else self._answering(batch_size)

    @contextmanager
    def _answering(self, batch_size: int | None) -> Any:
        """While open, the detector's own forward has its features from the cache."""
        self._memory.look_anew()

        def extract_feat(inputs: Tensor) -> tuple[Tensor, ...]:
            return self._of_evaluation(inputs, samples, batch_size)

        predict = type(self.detector).predict
        samples: list[Any] = []

        def predicted(inputs: Tensor, data_samples: Sequence[Any], **options: Any) -> Any:
            samples[:] = data_samples
            return predict(self.detector, inputs, data_samples, **options)

        with ExitStack() as stack:
            stack.enter_context(replaced(self.detector, 'predict', predicted))
            stack.enter_context(replaced(self.detector, 'extract_feat', extract_feat))
            yield

    def _of_evaluation(
        self, inputs: Tensor, samples: Sequence[Any], batch_size: int | None
    ) -> tuple[Tensor, ...]:
        # As the evaluation's batch pads them, or detections would not be MMDetection's own.
        shapes = [tuple(inputs.shape[-2:])] * len(inputs)
        size = at_once(batch_size or len(inputs))
        batch = TrunkBatch.of(self.cache, inputs, shapes, samples, Priority.EVALUATION, size=size)
        entries = self._features.whole(batch, range(len(inputs)), batch.priority)
        return features_as_batch(entries, inputs.device)

    def looks_ahead(self) -> bool:
        several = self.cache is not None and (self.cache.images_at_once or 1) > 1
        return several and bool(self.frozen_stages())

    def look_ahead(self, inputs: Tensor, data_samples: Sequence[Any]) -> list[bytes]:
        batch = TrunkBatch.of(self.cache, inputs, own_shapes(inputs, data_samples), data_samples)
        if FEATURES in self.frozen_stages():
            self._features.whole(batch, range(len(data_samples)), batch.priority)
        else:
            self._features.remember(batch)
        return list(batch.images)

    def remembers(self, image: bytes) -> bool:
        return self._memory.knows(self.frozen_stages()[-1], image)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any], streams: Mapping[str, Stream]
    ) -> dict[str, StreamOutput]:
        features = self._features_of(inputs, data_samples)
        return {
            name: self._stream_output(stream, inputs, features, data_samples)
            for name, stream in streams.items()
        }

    def _features_of(self, inputs: Tensor, samples: Sequence[Any]) -> tuple[Tensor, ...]:
        """Features, frozen parts without gradient and from the cache if there is one."""
        frozen = self.frozen_stages()
        shapes = own_shapes(inputs, samples)
        alike = all(shape == tuple(inputs.shape[-2:]) for shape in shapes)
        if not frozen or (self.cache is None and alike):
            with torch.set_grad_enabled(torch.is_grad_enabled() and FEATURES not in frozen):
                return type(self.detector).extract_feat(self.detector, inputs)
        batch = TrunkBatch.of(self.cache, inputs, shapes, samples)
        if FEATURES in frozen:
            entries = self._features.whole(batch, range(len(samples)), batch.priority)
        else:
            entries = self._features.above_cut(batch)
        return features_as_batch(entries, inputs.device)

    def _stream_output(
        self,
        stream: Stream,
        inputs: Tensor,
        features: Sequence[Tensor],
        data_samples: Sequence[Any],
    ) -> StreamOutput:
        self.check(stream.options)
        samples = data_samples[stream.images]
        own = tuple(level[stream.images] for level in features)
        targets = [sample.gt_instances for sample in samples]
        with ExitStack() as stack:
            stack.enter_context(replaced(self.detector, 'extract_feat', lambda *_: own))
            stack.enter_context(
                counting(self.class_heads(), stream.options, self.mean_over_matched)
            )
            if FEATURES in self.frozen_stages():
                stack.enter_context(self.idle_branch())
            losses = self.detector.loss(inputs[stream.images], samples)
        return StreamOutput(
            losses=_scalars(losses), targets=targets, sigmoid=_sigmoid(self.class_heads())
        )


def _sigmoid(heads: Sequence[nn.Module]) -> bool | None:
    """Whether the heads score each class by a sigmoid of its own."""
    return all(getattr(head.loss_cls, 'use_sigmoid', False) for head in heads) if heads else None


def _scalars(losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """MMDetection's losses, each level's added up; what is no loss is left out."""
    parts = {
        name: value if isinstance(value, (list, tuple)) else [value]
        for name, value in losses.items()
        if 'loss' in name
    }
    return {name: sum(part.mean() for part in levels) for name, levels in parts.items()}
