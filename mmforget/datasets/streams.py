"""One stream of one task: a few images, and of their annotations only those of some classes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mmforget.datasets.item_memory import ItemMemory
from mmforget.datasets.stream_seeds import integer_seed, seeded_generators
from mmforget.datasets.stream_source import StreamSource

# A crop that meets an object by one chance in ten fails this often once in 40,000 images.
MAX_ATTEMPTS = 100


class StreamDataset(Dataset):
    """The images of a stream, with the annotations of its classes only (spec A.4.3).

    Labels keep their numbers of the detector's full label map. Objects of other classes become
    background (``unlabelled='background'``, the paper's way) or are kept as ignored instances
    (``'ignore'``): PackDetInputs then puts them into ``data_samples.ignored_instances``, and the
    class loss of queries over them can be left out. Crowd annotations, ignored from the start,
    are handled alike whatever their class: dropped as background, as in DETR's own target
    conversion, or kept as ignored.

    An item depends on (image, ``draw_seed``) alone, not on the process that makes it, and making
    it leaves the global generators as they were. An image may lose all its boxes to a crop.

    Args:
        dataset: The built training data set; nothing of it is copied or changed.
        image_indices: The stream's images, as ``sample_images`` returns them.
        classes: The classes whose annotations are kept.
        unlabelled: ``'background'`` or ``'ignore'``.
        memory: Keeps items, for this stream and others of the same data set.

    Raises:
        TypeError: The data set is wrapped in something that draws or mixes images.
        ValueError: No images, an index out of range, an unknown class, an unknown value of
            ``unlabelled``, or a transform that mixes several images.
    """

    def __init__(
        self,
        dataset: Any,
        image_indices: Sequence[int],
        classes: Sequence[str],
        unlabelled: str = 'background',
        memory: ItemMemory | None = None,
    ) -> None:
        self.source = StreamSource(dataset)
        self.memory = memory
        self.image_indices = np.array(image_indices, dtype=np.int64)
        self.classes = tuple(classes)
        self.unlabelled = unlabelled
        if not len(self.image_indices):
            raise ValueError('A stream got no images; expected the result of sample_images.')
        outside = self.image_indices[
            (self.image_indices < 0) | (self.image_indices >= len(self.source))
        ]
        if len(outside):
            raise ValueError(
                f'A stream got the image index {outside[0]}; expected 0 to '
                f'{len(self.source) - 1}, the images of {self.source.ann_file}.'
            )
        unknown = [name for name in self.classes if name not in self.source.classes]
        if unknown or isinstance(classes, str):
            raise ValueError(
                f'A stream got the classes {classes!r}; expected a list of names out of: '
                f'{", ".join(self.source.classes)}.'
            )
        if unlabelled not in ('background', 'ignore'):
            raise ValueError(
                f"A stream got unlabelled={unlabelled!r}; expected 'background' or 'ignore'."
            )
        self.labels = frozenset(self.source.classes.index(name) for name in self.classes)
        for part in self.source.parts:
            for transform in _leaves(part.pipeline):
                # MMDetection's mark of Mosaic, MixUp and CopyPaste, the cached ones included.
                if hasattr(transform, 'get_indexes'):
                    raise ValueError(
                        f'The pipeline of {part.ann_file} holds {type(transform).__name__}, which '
                        'mixes several images and would mix the forget and the retain stream. '
                        'Take it out of the pipeline in train_dataloader.dataset.'
                    )

    def __len__(self) -> int:
        return len(self.image_indices)

    @property
    def metainfo(self) -> dict[str, Any]:
        """The training data set's meta information; hooks and visualisers ask for it."""
        return self.source.parts[0].metainfo

    def get_data_info(self, position: int) -> dict[str, Any]:
        """What MMDetection knows of an image, narrowed to the stream's classes.

        Args:
            position: Place in ``image_indices``.
        """
        info = self.source.info(int(self.image_indices[position]))
        kept = []
        for instance in info['instances']:
            wanted = instance['bbox_label'] in self.labels and not instance['ignore_flag']
            if wanted or self.unlabelled == 'ignore':
                instance['ignore_flag'] = int(not wanted)
                kept.append(instance)
        info['instances'] = kept
        return info

    def __getitem__(self, item: tuple[int, int]) -> Any:
        """What the pipeline makes of an image.

        Args:
            item: ``(position, draw_seed)`` as ``StreamBatchSampler`` yields it: a place in
                ``image_indices``, and the seed in [0, 2**63) of all random transforms.

        Raises:
            TypeError: ``item`` is no such pair.
            RuntimeError: The pipeline refused the image whatever the seed.
        """
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(
                f'A stream got the item {item!r}; expected (position, draw_seed). Load it with '
                'StreamBatchSampler and build_stream_loader.'
            )
        position, draw_seed = item
        key = (int(self.image_indices[position]), draw_seed, self.labels, self.unlabelled)
        known = None if self.memory is None else self.memory.get(key)
        if known is not None:
            return known
        data = self._run_pipeline(position, draw_seed)
        if self.memory is not None and isinstance(data, dict):
            self.memory.put(key, data)
        return data

    def _run_pipeline(self, position: int, draw_seed: int) -> Any:
        pipeline = self.source.pipeline(int(self.image_indices[position]))
        for attempt in range(MAX_ATTEMPTS):
            seed = draw_seed
            if attempt:
                # Another image, MMDetection's way, would depend on more than this item.
                seed = integer_seed(np.random.SeedSequence([draw_seed, attempt]))
            info = self.get_data_info(position)
            with seeded_generators(seed):
                data = pipeline(info)
            if data is not None:
                return data
        info = self.get_data_info(position)
        raise RuntimeError(
            f'The pipeline returned None for {info.get("img_path")!r} {MAX_ATTEMPTS} times, with '
            f'{len(info["instances"])} instances of {", ".join(self.classes)}. Let it keep images '
            'without boxes: allow_negative_crop=True in RandomCrop, keep_empty=False in '
            'FilterAnnotations.'
        )


def _leaves(transform: Any) -> Iterator[Any]:
    """The transforms inside Compose, RandomApply, RandomChoice and the like."""
    inner = getattr(transform, 'transforms', None)
    if isinstance(transform, (list, tuple)):
        inner = transform
    if inner is None:
        yield transform
        return
    for child in inner:
        yield from _leaves(child)
