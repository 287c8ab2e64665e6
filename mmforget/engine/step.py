"""The one module whose forward every gradient passes through."""

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm

from mmforget.data_elements import independent
from mmforget.digests import PIXELS, image_digest
from mmforget.engine.teacher import Teacher
from mmforget.methods import FORGET, RETAIN, ForgettingMethod
from mmforget.structures import StreamOutput
from mmforget.taps import SMALL_IMAGE, Stream, StreamOptions, Tap
from mmforget.taps.replaced import replaced
from mmforget.trainable import TrainablePart

_STREAMS = (FORGET, RETAIN)
# Where images are drawn anew each time there is no end to them.
_MOST_LOOKED_AT = 2**20
# Loggers that have told of streams padded to different sizes.
_TOLD: weakref.WeakSet[MMLogger] = weakref.WeakSet()


class ForgettingStep(nn.Module):
    """Detector, tap, method and trainable part: a batch of both streams in, losses out.

    It alone is wrapped for distributed training and compiled; the runner's model stays the plain
    detector, whose checkpoints everyone can read.

    Args:
        detector: The plain detector, trainable part injected.
        tap: Reads the detector.
        method: The objective.
        trainable: What may move; its penalty joins the losses.
        teacher: For methods that ask for one.
    """

    def __init__(
        self,
        detector: BaseModel,
        tap: Tap,
        method: ForgettingMethod,
        trainable: TrainablePart,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.tap = tap
        self.method = method
        self.trainable = trainable
        self.teacher = teacher
        self._looks_ahead = True

    def train(self, mode: bool = True) -> 'ForgettingStep':
        """Training mode without waking what is frozen: BatchNorm statistics and the trunk."""
        super().train(mode)
        # MMDetection's backbones freeze their first stages in every call of train().
        for parameter in self.trainable.parameters():
            parameter.requires_grad_(True)
        if mode:
            for module in self.detector.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
            self._still_trunk()
        return self

    def _still_trunk(self) -> None:
        """Dropout stays off below the cut; pruning may have moved the cut upwards."""
        for module in self.tap.trunk():
            if module.training:
                module.eval()

    def forward(
        self, batch: Mapping[str, dict[str, Sequence[Any]]], step: int
    ) -> dict[str, Tensor]:
        """Runs both streams through the network.

        As one batch where both are padded to the same height and width, or where the trunk, which
        sees each image by itself, holds all that looks at padding. Otherwise each on its own:
        padding one stream to the other's size would change what the detector sees of it.

        Args:
            batch: ``{'forget': data, 'retain': data}``, as the dataloaders collate them.
            step: Steps done in this task.

        Returns:
            Named scalars; those with ``loss`` in their name make up the objective.
        """
        if self.training:
            self._still_trunk()
        data = {name: self._preprocessed(batch[name]) for name in self._streams()}
        shapes = [tuple(data[name]['inputs'].shape[-2:]) for name in data]
        if len(set(shapes)) == 1 or not self.tap.sees_padding():
            outputs = self._forward(data)
        else:
            _tell_once(*shapes)
            outputs = {}
            for name in data:
                outputs |= self._forward({name: data[name]})
        losses = self.method.losses(outputs.get(FORGET), outputs.get(RETAIN))
        penalty = self.trainable.penalty(step)
        if penalty is not None:
            losses['loss_sparsity'] = penalty
        return losses

    def _streams(self) -> list[str]:
        """Those that the method looks at in the coming step."""
        return [name for name in _STREAMS if name in self.method.streams]

    @torch.no_grad()
    def look_ahead(self, batches: Iterable[Mapping[str, dict[str, Sequence[Any]]]]) -> None:
        """Lets the trunk see the new images of the first batch, together with later ones.

        Small images go through it several at once; what the first batch has left over would be
        filled up with copies. Where nothing is gained, no batch is asked for.

        Args:
            batches: The one that comes next, and some after it, as ``forward`` will get them. No
                more are taken than are needed.
        """
        if not self._looks_ahead or not self._knows_pixels() or not self.tap.looks_ahead():
            return
        size = self.tap.cache.images_at_once
        names = self._streams()
        new: dict[bytes, tuple[Tensor, Any]] = {}
        wanted = None
        for batch in batches:
            for image, sample in (pair for name in names for pair in _items(batch[name])):
                digest = image_digest(image)
                if image.shape[-2:].numel() <= SMALL_IMAGE and not self._remembers(digest):
                    new[digest] = image, sample
            if wanted is None:
                wanted = math.ceil(len(new) / size) * size
            if len(new) >= wanted:
                break
        if new:
            self._show(dict(islice(new.items(), wanted)))

    def _remembers(self, digest: bytes) -> bool:
        key = self.tap.cache.looked_at.get(digest)
        return key is not None and self.tap.remembers(key)

    def _show(self, new: Mapping[bytes, tuple[Tensor, Any]]) -> None:
        """Shows the trunk new images, given by their digests."""
        self._still_trunk()
        images, samples = map(list, zip(*new.values(), strict=True))
        data = self._preprocessed({'inputs': images, 'data_samples': samples})
        keys = self.tap.look_ahead(data['inputs'], data['data_samples'])
        looked_at = self.tap.cache.looked_at
        if len(looked_at) > _MOST_LOOKED_AT:
            looked_at.clear()
        looked_at |= dict(zip(new, keys, strict=True))
        # A cache that is too small for them would have everything computed twice.
        self._looks_ahead = all(map(self.tap.remembers, keys))

    def _knows_pixels(self) -> bool:
        """Whether pixels before the preprocessor tell what the cache holds of those after it."""
        preprocessor = self.detector.data_preprocessor
        # Others may draw at random.
        plain = type(preprocessor) in (DetDataPreprocessor, ImgDataPreprocessor)
        draws = getattr(preprocessor, 'batch_augments', None)
        return plain and not draws and self.tap.cache is not None

    def _preprocessed(self, data: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """What MMDetection's preprocessor makes of one stream's batch."""
        known = self._knows_pixels()
        pixels = [image_digest(image) for image in data['inputs']] if known else []
        inputs = {key: data[key] for key in ('inputs', 'data_samples')}
        with self._light_copies():
            processed = self.detector.data_preprocessor(inputs, training=True)
        if known:
            for sample, digest in zip(processed['data_samples'], pixels, strict=True):
                sample.set_metainfo({PIXELS: digest})
        return processed

    def _light_copies(self) -> AbstractContextManager[None]:
        """Where nothing has to be moved, the preprocessor's copies of the samples cost little."""
        preprocessor = self.detector.data_preprocessor
        own = type(preprocessor).cast_data is not BaseDataPreprocessor.cast_data
        if own or torch.device(preprocessor.device).type != 'cpu':
            return nullcontext()
        return replaced(preprocessor, 'cast_data', _light_copy)

    def _forward(self, data: Mapping[str, dict[str, Any]]) -> dict[str, StreamOutput]:
        """One forward for some of the streams."""
        inputs = _one_batch([data[name]['inputs'] for name in data])
        samples: list[Any] = []
        streams = {}
        for name in data:
            own = self.method.targets(name, data[name]['data_samples'])
            place = slice(len(samples), len(samples) + len(own))
            streams[name] = Stream(place, self.method.stream_options(name))
            samples += own
        outputs = self.tap.forward(inputs, samples, streams)
        asked = {name: streams[name] for name in streams if name in self.method.teacher_streams}
        if self.teacher is not None and asked:
            answers = self.teacher.outputs(inputs, samples, asked, self.tap)
            for name, output in answers.items():
                outputs[name].teacher = output
        return outputs

    def measured(self, data: dict[str, Sequence[Any]], each: bool) -> list[StreamOutput]:
        """One forward for a batch of one stream, as the detector's own loss wants it.

        Args:
            data: As the dataloader collates it.
            each: One output for each image; otherwise one for all.
        """
        processed = self._preprocessed(data)
        images, samples = processed['inputs'], processed['data_samples']
        places = (
            [slice(i, i + 1) for i in range(len(samples))] if each else [slice(0, len(samples))]
        )
        streams = {str(i): Stream(place, StreamOptions()) for i, place in enumerate(places)}
        return list(self.tap.forward(images, samples, streams).values())


def _light_copy(data: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What ``cast_data`` gives for a batch that is in the host's memory already."""
    return {**data, 'data_samples': [independent(sample) for sample in data['data_samples']]}


def _items(data: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Tensor, Any]]:
    """Images and samples of one stream's batch."""
    return zip(data['inputs'], data['data_samples'], strict=True)


def _one_batch(batches: Sequence[Tensor]) -> Tensor:
    """Images, (B, 3, H, W) each, padded to the largest shape as the preprocessor pads them."""
    height, width = (max(batch.shape[side] for batch in batches) for side in (-2, -1))
    return torch.cat([pad(b, (0, width - b.shape[-1], 0, height - b.shape[-2])) for b in batches])


def _tell_once(forget: tuple[int, int], retain: tuple[int, int]) -> None:
    """Logs why the streams go one after the other; once a run, which has a logger of its own."""
    logger = MMLogger.get_current_instance()
    if logger in _TOLD:
        return
    _TOLD.add(logger)
    logger.info(
        f'The forget batch is padded to {_size(forget)} and the retain batch to {_size(retain)}: '
        'where they differ, the two go through the network one after the other instead of '
        'together. A pipeline that gives all images one shape (Pad to a fixed size) is faster, and '
        'so are groups of a transformer decoder alone.'
    )


def _size(shape: tuple[int, int]) -> str:
    return ' x '.join(map(str, shape))
