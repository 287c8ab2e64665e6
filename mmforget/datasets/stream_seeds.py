"""Random draws that are pure functions of (seed, task, stream, counter), in any process."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What is drawn. Draws for different purposes are independent of each other."""

    SAMPLE = 1
    EPOCH = 2
    PIXELS = 3
    VARIANT = 4
    RECURRING = 5


def seed_sequence(
    purpose: Purpose, seed: int, task: int, stream: str, counter: int = 0
) -> np.random.SeedSequence:
    """The entropy of one draw.

    Args:
        purpose: What is drawn.
        seed: The run's seed.
        task: Index of the task, from 0.
        stream: Name of the stream; hashed with CRC-32, as ``hash`` differs between processes.
        counter: The how-manieth draw of this purpose.

    Raises:
        ValueError: ``seed``, ``task`` or ``counter`` is negative.
    """
    for name, value in (('seed', seed), ('task', task), ('counter', counter)):
        if value < 0:
            raise ValueError(
                f'The stream {stream!r} got {name}={value}; expected a whole number >= 0.'
            )
    # Always five entries: SeedSequence pads with zeros, so that [1] and [1, 0] are the same.
    return np.random.SeedSequence(
        [int(purpose), int(seed), int(task), zlib.crc32(stream.encode()), int(counter)]
    )


def permutation(length: int, sequence: np.random.SeedSequence) -> np.ndarray:
    """A random order of ``range(length)``, int64 of shape (length,).

    Sorts the bit generator's raw numbers: these are the same in every release of NumPy, which is
    not promised for ``Generator.permutation``.
    """
    keys = np.random.PCG64(sequence).random_raw(length)
    return np.argsort(keys, kind='stable')


def integer_seed(sequence: np.random.SeedSequence) -> int:
    """One number in [0, 2**63) out of ``sequence``."""
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seeds the global generators of random, numpy and torch (CPU), and restores them afterwards.

    Augmentations draw from all three. Those that own a generator (Albumentations from 1.4 on) are
    out of reach.

    Args:
        seed: A number in [0, 2**63).
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(np.random.SeedSequence(seed).generate_state(4))
        # torch.manual_seed would also reseed the accelerators, which nothing here restores.
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
