"""Endless, resumable batches of a stream."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from torch.utils.data import DataLoader, Sampler

from mmforget.datasets.stream_seeds import Purpose, integer_seed, permutation, seed_sequence
from mmforget.datasets.streams import StreamDataset

# What an ordinary dataloader config says about drawing images; the batch sampler decides that.
_DRAWING_KEYS = {
    'dataset', 'sampler', 'batch_sampler', 'batch_size', 'shuffle', 'drop_last',
    'num_batch_per_epoch', 'disable_subprocess_warning', 'generator',
}  # fmt: skip


class StreamBatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one stream of one task.

    The stream is an endless sequence of images: epoch after epoch, each epoch an order of all
    images drawn from (seed, task, stream, epoch). Step s takes the next ``batch_size *
    world_size`` of them, of which each rank has its own part. So a batch is a pure function of
    (seed, task, stream, s): resuming at ``start_step`` replays nothing. No image is dropped at
    the end of an epoch, and a batch may be larger than the data set.

    Args:
        length: Images of the stream.
        batch_size: Images per step and rank.
        seed: The run's seed, the same on all ranks.
        task: Index of the task.
        stream: Name of the stream.
        start_step: The first step to yield.
        num_steps: Steps of the whole task, the ones before ``start_step`` included; ``None`` for
            no end.
        rank: This process.
        world_size: Number of processes.
        augmentations: How many draws of the random transforms an image has: epoch e takes draw
            e modulo this, and a draw depends on (seed, stream, image, draw) alone, so that an
            image that comes again in another task has the same ones. ``None`` draws anew each
            time.
        images: Index of the image at each position, for ``augmentations``; by default the
            position itself.

    Raises:
        ValueError: A size below one, a negative number, ``start_step`` beyond ``num_steps``, or a
            rank outside ``world_size``.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        task: int,
        stream: str,
        start_step: int = 0,
        num_steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        augmentations: int | None = None,
        images: Sequence[int] | None = None,
    ) -> None:
        sizes = {'length': length, 'batch_size': batch_size, 'augmentations': augmentations}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(
                    f'The stream {stream!r} got {name}={value}; expected a whole number >= 1.'
                )
        if start_step < 0 or (num_steps is not None and start_step > num_steps):
            raise ValueError(
                f'The stream {stream!r} got start_step={start_step} and num_steps={num_steps}; '
                'expected 0 <= start_step <= num_steps. num_steps counts the whole task.'
            )
        if not 0 <= rank < world_size:
            raise ValueError(
                f'The stream {stream!r} got rank={rank} and world_size={world_size}; expected '
                '0 <= rank < world_size.'
            )
        self.length = length
        self.batch_size = batch_size
        self.key = (seed, task, stream)
        self.start_step = start_step
        self.num_steps = num_steps
        self.rank = rank
        self.world_size = world_size
        self.augmentations = augmentations
        self.images = range(length) if images is None else images
        self._epoch = -1
        self._order = self._order_of(0)

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            sequence = seed_sequence(Purpose.EPOCH, *self.key, counter=epoch)
            self._epoch, self._order = epoch, permutation(self.length, sequence)
        return self._order

    def batch(self, step: int) -> list[tuple[int, int]]:
        """This rank's batch of a step.

        Returns:
            ``batch_size`` pairs of a position in [0, ``length``) and a seed in [0, 2**63) for the
            random transforms.
        """
        first = (step * self.world_size + self.rank) * self.batch_size
        pairs = []
        for place in range(first, first + self.batch_size):
            epoch, within = divmod(place, self.length)
            position = int(self._order_of(epoch)[within])
            pairs.append((position, integer_seed(self._draw(place, epoch, position))))
        return pairs

    def _draw(self, place: int, epoch: int, position: int) -> np.random.SeedSequence:
        """Of the random transforms of the image at a place of the endless sequence."""
        if self.augmentations is None:
            return seed_sequence(Purpose.PIXELS, *self.key, counter=place)
        # In turn, not at random: all variants are seen equally often, none later than need be.
        seed, _, stream = self.key
        draw = epoch % self.augmentations
        # The draw above the image: more augmentations leave the first ones as they are.
        counter = (draw << 32) + int(self.images[position])
        return seed_sequence(Purpose.VARIANT, seed, 0, stream, counter)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start_step
        while self.num_steps is None or step < self.num_steps:
            yield self.batch(step)
            step += 1

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError(
                f'The batches of the stream {self.key[2]!r} have no end; give num_steps.'
            )
        return self.num_steps - self.start_step


def build_stream_loader(
    dataset: StreamDataset,
    batch_sampler: StreamBatchSampler,
    /,
    num_workers: int = 0,
    collate_fn: Callable | dict[str, Any] | None = None,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    **others: Any,
) -> DataLoader:
    """Builds the loader of a stream with the settings of an ordinary dataloader config.

    ``build_stream_loader(dataset, batch_sampler, **cfg.train_dataloader)`` works: keys that say
    which images make up a batch (dataset, sampler, batch_sampler, batch_size, shuffle, drop_last,
    num_batch_per_epoch, generator) are ignored, since ``dataset`` and ``batch_sampler`` decide
    that. Batches and pixels are the same for any number of workers.

    Args:
        dataset: The stream (positional only, like the next).
        batch_sampler: Its batches.
        num_workers: Loading processes; 0 loads in this one.
        collate_fn: A function, or ``dict(type=..., **arguments)`` as in a config; ``None`` is
            MMEngine's ``pseudo_collate``, which leaves images of different sizes unstacked.
        persistent_workers: Keep the processes after the last batch; ignored without workers.
        pin_memory: Load into page-locked memory.
        others: Further arguments of ``torch.utils.data.DataLoader``, such as ``prefetch_factor``
            (ignored without workers), ``timeout`` or ``worker_init_fn`` (a function or a dict,
            like ``collate_fn``).

    Raises:
        TypeError: A key that DataLoader does not know.
        KeyError: The name of a function that is not registered.
    """
    options = {key: value for key, value in others.items() if key not in _DRAWING_KEYS}
    if num_workers:
        options['persistent_workers'] = persistent_workers
    else:
        # DataLoader refuses these without workers, where they have no meaning.
        options.pop('prefetch_factor', None)
    if options.get('worker_init_fn') is not None:
        options['worker_init_fn'] = _function(options['worker_init_fn'])
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=_function(collate_fn or pseudo_collate),
        pin_memory=pin_memory,
        # Its own, for DataLoader would draw the workers' base seed from torch's global generator.
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def _function(function: Callable | dict[str, Any]) -> Callable:
    """A function as itself, or from a config that names it."""
    if callable(function):
        return function
    arguments = dict(function)
    kind = arguments.pop('type')
    found = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise KeyError(
            f'The dataloader names the function {kind!r}, which is not registered; expected a '
            "name of mmengine's FUNCTIONS, such as 'pseudo_collate', or the function itself."
        )
    return partial(found, **arguments)
