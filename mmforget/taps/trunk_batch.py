"""Images that a trunk is asked for together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmforget.taps.fingerprints import image_keys
from mmforget.taps.own_shapes import cropped
from mmforget.taps.stages import at_once
from mmforget.taps.trunk_cache import Priority, TrunkCache

# Up to this many pixels, images of one shape go through the trunk together.
SMALL_IMAGE = 256 * 256


@dataclass(frozen=True)
class TrunkBatch:
    """What is asked for at once.

    Attributes:
        inputs: The preprocessed images, (3, H, W) each.
        shapes: Their heights and widths.
        samples: Their data samples.
        images: Their digests.
        priority: How dear what is needed is to the cache.
        keep_features: Features are kept although what lies above them is.
        size: How many small images are computed together.
        encoded: What an encoder gave for each image that was asked for so far.
    """

    inputs: Sequence[Tensor]
    shapes: Sequence[tuple[int, int]]
    samples: Sequence[Any]
    images: Sequence[bytes]
    priority: Priority
    keep_features: bool
    size: int
    encoded: dict[bytes, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        cache: TrunkCache | None,
        inputs: Tensor,
        shapes: Sequence[tuple[int, int]],
        samples: Sequence[Any],
        priority: Priority = Priority.TRAINING,
        keep_features: bool = False,
        size: int | None = None,
    ) -> 'TrunkBatch':
        """The batch of preprocessed images (B, 3, H, W), each cropped to its own shape.

        Args:
            cache: Says how many small images the run computes together.
            inputs: The images.
            shapes: Height and width of each.
            samples: One ``DetDataSample`` per image.
            priority: See the class.
            keep_features: See the class.
            size: See the class; ``None`` is what the run says, or else decided by the batch.
        """
        images = cropped(inputs, shapes)
        if size is None and cache is not None:
            size = cache.images_at_once
        size = size or at_once(len(images))
        keys = [
            key + (f' by {size}'.encode() if is_small(shape) else b'')
            for key, shape in zip(image_keys(images, samples), shapes, strict=True)
        ]
        return cls(images, shapes, samples, keys, priority, keep_features, size)

    @property
    def alike(self) -> bool:
        """Whether all images have one shape."""
        return len(set(self.shapes)) == 1

    def together(self, indices: Sequence[int]) -> list[Hashable]:
        """What images have in common that may be computed together: small, of one shape."""
        return [
            (shape, tuple(self.samples[index].img_shape) == shape) if is_small(shape) else None
            for index in indices
            for shape in [self.shapes[index]]
        ]


def is_small(shape: tuple[int, int]) -> bool:
    """Whether images of a height and width go through the trunk together."""
    return shape[0] * shape[1] <= SMALL_IMAGE
