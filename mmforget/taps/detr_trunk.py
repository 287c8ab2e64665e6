"""The frozen part of DETR-likes: cut up to inside the decoder, and its outputs remembered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

from mmdet.models.layers import (
    ConditionalDetrTransformerDecoder,
    ConditionalDetrTransformerDecoderLayer,
    DABDetrTransformerDecoder,
    DABDetrTransformerDecoderLayer,
    DeformableDetrTransformerDecoder,
    DetrTransformerDecoder,
    DetrTransformerDecoderLayer,
    DinoTransformerDecoder,
)
from torch import Tensor, nn

from mmforget.taps.feature_trunk import FEATURES, FeatureTrunk
from mmforget.taps.own_shapes import (
    as_alone,
    as_batch,
    features_as_batch,
    own_shapes,
)
from mmforget.taps.replaced import replaced
from mmforget.taps.stages import Stage, StageMemory, at_once
from mmforget.taps.trunk_batch import TrunkBatch
from mmforget.taps.trunk_cache import Priority, TrunkCache

# What the encoder hands on that holds for the whole batch, for it depends on its shape alone.
_SHARED = ('spatial_shapes', 'level_start_index')
# Coordinates: rounding them would move boxes.
_EXACT = ('valid_ratios', 'encoded.valid_ratios', *_SHARED, *(f'encoded.{n}' for n in _SHARED))
_KNOWN_DECODERS = {
    decoder.forward
    for decoder in (
        DetrTransformerDecoder,
        DeformableDetrTransformerDecoder,
        ConditionalDetrTransformerDecoder,
        DABDetrTransformerDecoder,
        DinoTransformerDecoder,
    )
}
# Each of them ends with the feed-forward network and a norm.
_KNOWN_LAYERS = {
    layer.forward
    for layer in (
        DetrTransformerDecoderLayer,
        ConditionalDetrTransformerDecoderLayer,
        DABDetrTransformerDecoderLayer,
    )
}


class DETRTrunk:
    """Cuts a ``DetectionTransformer`` and answers from a cache what lies below the cut.

    Stages, from the image upwards: ``features`` (backbone and neck; where they are trained, the
    part below the first trained module comes before it), ``encoder``, then for every decoder layer
    i ``decoder.<i>.attention`` (up to its feed-forward network) and ``decoder.<i>``.
    With the last layer's feed-forward network alone above the cut, the encoder's memory is not
    needed at all.

    The decoders of DETR, Deformable DETR, Conditional DETR, DAB-DETR and DINO can be cut. Where a
    decoder or one of its layers has a forward of its own, the last stage is ``encoder``.

    What happens between decoder layers (box refinement, reference points) is computed every time,
    by the decoder itself, so that outputs of frozen layers are there for auxiliary losses, too.

    Args:
        detector: The detector.
        cache: ``None``: nothing is remembered.
        head_parts: The parts of the head that the decoder's inputs depend on: those of all
            layers, and those of each layer.
    """

    def __init__(
        self,
        detector: nn.Module,
        cache: TrunkCache | None,
        head_parts: Callable[[], tuple[list[nn.Module], list[nn.Module]]],
    ) -> None:
        self.detector = detector
        self.memory = StageMemory(cache, self.stages, _EXACT)
        self._features = FeatureTrunk(detector, self.memory)
        self._head_parts = head_parts
        self._pre_decoder = tuple(signature(detector.pre_decoder).parameters)
        self._forward_encoder = tuple(signature(detector.forward_encoder).parameters)
        self._forward_decoder = tuple(signature(detector.forward_decoder).parameters)

    def stages(self) -> dict[str, Stage]:
        """Every parameter of the detector but those of the head belongs to one of them."""
        detector = self.detector
        below = [detector.backbone, detector.neck] if detector.with_neck else [detector.backbone]
        above = (detector.decoder, detector.bbox_head)
        others = [m for m in detector.children() if not any(m is n for n in (*below, *above))]
        stages = {
            **self._features.stages(),
            'encoder': Stage(others, list(detector.parameters(recurse=False))),
        }
        if not self._can_cut_decoder():
            return stages
        decoder = detector.decoder
        of_all, of_each = self._head_parts()
        feeding = [*(m for name, m in decoder.named_children() if name != 'layers'), *of_all]
        parameters = list(decoder.parameters(recurse=False))
        for index, layer in enumerate(decoder.layers):
            attention = [layer.self_attn, layer.cross_attn, *layer.norms[:2]]
            stages[f'decoder.{index}.attention'] = Stage([*feeding, *attention], parameters)
            stages[f'decoder.{index}'] = Stage([layer])
            feeding, parameters = of_each[index : index + 1], []
        return stages

    def head_inputs(
        self, inputs: Tensor, samples: Sequence[Any], frozen: Sequence[str]
    ) -> dict[str, Any]:
        """What ``forward_transformer`` gives, with the frozen stages from the cache.

        Below the cut each image has its own padded shape.

        Args:
            inputs: The preprocessed batch, (B, 3, H, W).
            samples: One ``DetDataSample`` per image.
            frozen: The leading stages in which nothing is trained, at least one.
        """
        shapes = own_shapes(inputs, samples)
        batch = TrunkBatch.of(self.memory.cache, inputs, shapes, samples)
        return self._head_inputs(batch, frozen)

    def fill(self, inputs: Tensor, samples: Sequence[Any], cut: str) -> list[bytes]:
        """Remembers what will be asked for these images.

        Args:
            inputs: Preprocessed images, (N, 3, H, W).
            samples: One ``DetDataSample`` per image.
            cut: The last of the frozen stages.

        Returns:
            What each image is known by.
        """
        shapes = own_shapes(inputs, samples)
        batch = TrunkBatch.of(self.memory.cache, inputs, shapes, samples)
        if self._features.is_partial(cut):
            self._features.remember(batch)
        elif cut == FEATURES:
            self._features.whole(batch, range(len(samples)), batch.priority)
        elif cut == 'encoder':
            self._encoded(batch, range(len(samples)), batch.priority)
        else:
            self._decoded(batch, cut)
        return list(batch.images)

    @contextmanager
    def answering(self, batch_size: int | None = None) -> Iterator[None]:
        """While open, the detector's own forward asks the cache, for evaluation.

        Args:
            batch_size: Images in a batch that is not the last; ``None``: each batch for itself.

        It is cut below the first stage whose weights were seen to change, or else below the last
        feed-forward network.
        """
        detector = self.detector
        frozen: list[str] = []
        seen: list[Tensor] = []

        def extract_feat(inputs: Tensor) -> tuple[Tensor, ...]:
            seen[:] = [inputs]
            return ()

        def forward_transformer(features: tuple[Tensor, ...], samples: Sequence[Any]) -> dict:
            if not frozen:  # Now, for hooks may have changed weights since the pass began.
                frozen.extend(self._unchanged_stages())
            # As the evaluation's batch pads them, or detections would not be MMDetection's own.
            shapes = [tuple(seen[0].shape[-2:])] * len(samples)
            images = batch_size or len(samples)
            batch = TrunkBatch.of(
                self.memory.cache,
                seen[0],
                shapes,
                samples,
                Priority.EVALUATION,
                keep_features=True,
                size=at_once(images),
            )
            return self._head_inputs(batch, frozen)

        with replaced(detector, 'extract_feat', extract_feat):
            with replaced(detector, 'forward_transformer', forward_transformer):
                yield

    def _unchanged_stages(self) -> list[str]:
        """The stages below the first one whose weights were seen to change; one at least."""
        names = [name for name in self.stages() if not self._features.is_partial(name)]
        names = names[:-1] if self._can_cut_decoder() else names
        self.memory.look_anew()
        for name in names:
            self.memory.check(name)
        changed = [place for place, name in enumerate(names) if self.memory.has_changed(name)]
        # Features at least: whether they are the same is seen anew in every evaluation.
        return names[: max(1, min(changed, default=len(names)))]

    def _can_cut_decoder(self) -> bool:
        decoder = self.detector.decoder
        return type(decoder).forward in _KNOWN_DECODERS and all(
            type(layer).forward in _KNOWN_LAYERS for layer in decoder.layers
        )

    def _head_inputs(self, batch: TrunkBatch, frozen: Sequence[str]) -> dict[str, Any]:
        everything = range(len(batch.images))
        cut = frozen[-1]
        if self._features.is_partial(cut):
            return self._transform(batch, self._features.above_cut(batch))
        if cut == FEATURES:
            return self._transform(batch, self._features.whole(batch, everything, batch.priority))
        if cut == 'encoder':
            return self._decode(self._encoded(batch, everything, batch.priority))
        alike = len(set(batch.shapes)) == 1
        decoded = as_batch(self._decoded(batch, cut), batch.inputs[0].device, alike)
        if self._without_memory(cut):
            encoded = {
                name.removeprefix('encoded.'): decoded.pop(name)
                for name in list(decoded)
                if name.startswith('encoded.')
            }
        else:
            encoded = self._encoded(batch, everything, batch.priority)
        with self._answering_layers(decoded):
            return self._decode(encoded)

    def _transform(
        self, batch: TrunkBatch, entries: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Any]:
        """``forward_transformer`` on the features of images that may have several shapes."""
        detector, device = self.detector, batch.inputs[0].device
        if len(set(batch.shapes)) == 1:
            features = features_as_batch(entries, device)
            return type(detector).forward_transformer(detector, features, batch.samples)
        # Masks of the batch, scaled to a level, would end beside the image's own features.
        inputs = []
        for entry, sample, shape in zip(entries, batch.samples, batch.shapes, strict=True):
            features = features_as_batch([entry], device)
            of_encoder, of_decoder = detector.pre_transformer(features, [as_alone(sample, shape)])
            inputs.append(_per_image({**of_encoder, **of_decoder}))
        together = {n: v[0] if n in _SHARED else v for n, v in as_batch(inputs, device).items()}
        encoded = detector.forward_encoder(
            **{name: together.get(name) for name in self._forward_encoder}
        )
        return self._decode(_per_image({**together, **encoded}))

    def _without_memory(self, cut: str) -> bool:
        """Whether nothing above the cut looks at the encoder's memory."""
        last = f'decoder.{len(self.detector.decoder.layers) - 1}'
        return cut in (last, f'{last}.attention') and not getattr(
            self.detector, 'as_two_stage', False
        )

    def _encoded(
        self, batch: TrunkBatch, indices: Sequence[int], priority: Priority
    ) -> dict[str, Tensor]:
        """All that the encoder and what lies before it hand on to the decoder, by name.

        Each (N, ...), those that hold for the whole batch included; what is None is left out.
        """
        detector = self.detector
        new = [i for i in dict.fromkeys(indices) if batch.images[i] not in batch.encoded]
        features: dict[bytes, dict[str, Tensor]] = {}
        device = batch.inputs[0].device

        def compute(of: list[int]) -> dict[str, Tensor]:
            if not features:
                # Backbone and neck see all images together that the encoder is asked for now.
                features.update(self._missing_features(batch, new))
            indices = [new[place] for place in of]
            lost = [i for i in indices if batch.images[i] not in features]
            if lost:  # Known a moment ago, but their file is gone.
                entries = self._features.whole(batch, lost, None)
                features.update(zip([batch.images[i] for i in lost], entries, strict=True))
            encoder_inputs, decoder_inputs = detector.pre_transformer(
                features_as_batch([features[batch.images[i]] for i in indices], device),
                [as_alone(batch.samples[i], batch.shapes[i]) for i in indices],
            )
            handed_on = {**detector.forward_encoder(**encoder_inputs), **decoder_inputs}
            return {
                name: value.expand(len(of), *value.shape) if name in _SHARED else value
                for name, value in handed_on.items()
                if value is not None
            }

        if new:
            images = [batch.images[index] for index in new]
            entries = self.memory.entries(
                'encoder', images, compute, priority, batch.together(new), batch.size
            )
            batch.encoded.update(zip(images, entries, strict=True))
        alike = len({batch.shapes[index] for index in indices}) == 1
        return as_batch([batch.encoded[batch.images[i]] for i in indices], device, alike)

    def _missing_features(
        self, batch: TrunkBatch, indices: Sequence[int]
    ) -> dict[bytes, dict[str, Tensor]]:
        """Features, (1, C, H, W) each, of the images of which the encoder's output is unknown."""
        missing = self._missing(batch, 'encoder', indices)
        entries = self._features.whole(
            batch, missing, Priority.BELOW if batch.keep_features else None
        )
        return {batch.images[i]: entry for i, entry in zip(missing, entries, strict=True)}

    def _missing(self, batch: TrunkBatch, stage: str, indices: Sequence[int]) -> list[int]:
        """The first place of every image of which a stage's output is unknown."""
        first = {batch.images[index]: index for index in reversed(indices)}
        return sorted(first[image] for image in self.memory.unknown(stage, first))

    def _decoded(self, batch: TrunkBatch, cut: str) -> list[dict[str, Tensor]]:
        """What the frozen decoder layers give, by their index, and the attention above them.

        Where the encoder's memory is not needed above the cut, what else the decoder asks for goes
        along under names that begin with ``encoded.``.
        """
        alone = self._without_memory(cut)

        def compute(of: list[int]) -> dict[str, Tensor]:
            priority = Priority.BELOW if alone else batch.priority
            if not batch.encoded:  # All that will be asked for, so that they share a batch.
                needed = range(len(batch.images))
                needed = self._missing(batch, cut, needed) if alone else needed
                self._encoded(batch, needed, priority)
            encoded = self._encoded(batch, of, priority)
            outputs = self._run_layers(encoded, cut)
            if alone:
                outputs |= {f'encoded.{n}': _one_token(n, v) for n, v in encoded.items()}
            return outputs

        together = batch.together(range(len(batch.images)))
        return self.memory.entries(cut, batch.images, compute, batch.priority, together, batch.size)

    def _decoder_inputs(self, encoded: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict]:
        """Arguments of ``forward_decoder``, and what the head gets besides."""
        encoded = {n: value[0] if n in _SHARED else value for n, value in encoded.items()}
        queries, for_head = self.detector.pre_decoder(
            **{name: encoded.get(name) for name in self._pre_decoder}
        )
        inputs = {name: encoded.get(name) for name in self._forward_decoder}
        return inputs | queries, for_head

    def _decode(self, encoded: Mapping[str, Tensor]) -> dict[str, Any]:
        inputs, for_head = self._decoder_inputs(encoded)
        return for_head | self.detector.forward_decoder(**inputs)

    def _run_layers(self, encoded: Mapping[str, Tensor], cut: str) -> dict[str, Tensor]:
        """Runs the decoder up to the cut and returns what its layers give."""
        decoder = self.detector.decoder
        index, attention = _place(cut)
        layers, last = decoder.layers, decoder.layers[index]
        outputs: dict[str, Tensor] = {}

        def record(name: str) -> Callable[..., None]:
            return lambda module, inputs, output: outputs.update({name: output})

        with ExitStack() as stack:
            for number in range(index if attention else index + 1):
                handle = layers[number].register_forward_hook(record(str(number)))
                stack.callback(handle.remove)
            if attention:
                handle = last.norms[1].register_forward_hook(record('attention'))
                stack.callback(handle.remove)
                # It is above the cut; its dropout would draw from the run's random numbers.
                stack.enter_context(replaced(last.ffn, 'forward', lambda query: query))
            stack.callback(setattr, decoder, 'layers', layers)
            decoder.layers = layers[: index + 1]
            self.detector.forward_decoder(**self._decoder_inputs(encoded)[0])
        return outputs

    @contextmanager
    def _answering_layers(self, decoded: Mapping[str, Tensor]) -> Iterator[None]:
        """Lets the frozen decoder layers answer with what was remembered of the whole batch."""
        layers = self.detector.decoder.layers
        with ExitStack() as stack:
            frozen = 0
            for name, output in decoded.items():
                if name != 'attention':
                    answer = _constant(output)
                    stack.enter_context(replaced(layers[int(name)], 'forward', answer))
                    frozen += 1
            if 'attention' in decoded:
                half = layers[frozen]

                def upper_half(*_: Any, **__: Any) -> Tensor:
                    return half.norms[2](half.ffn(decoded['attention']))

                stack.enter_context(replaced(half, 'forward', upper_half))
            yield


def _place(cut: str) -> tuple[int, bool]:
    """The decoder layer that a stage is named after, and whether it ends with its attention."""
    _, index, *attention = cut.split('.')
    return int(index), bool(attention)


def _per_image(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """With a first dimension of 1 for what holds for a whole batch, and without what is None."""
    return {
        name: value[None] if name in _SHARED else value
        for name, value in values.items()
        if value is not None
    }


def _one_token(name: str, value: Tensor) -> Tensor:
    """Keeps of what has one entry per token the first, which tells type and channels."""
    return value if name in _SHARED or name == 'valid_ratios' else value[:, :1]


def _constant(output: Tensor) -> Callable[..., Tensor]:
    return lambda *_, **__: output
