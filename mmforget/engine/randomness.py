"""Every random draw is a pure function of (seed, task, step): nothing has to be restored."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on the keys alone, on every machine."""
    words = np.random.SeedSequence(keys).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seed_step(seed: int, task: int, step: int) -> None:
    """Seeds all generators that dropout and batch augmentations draw from."""
    # From 1 on: SeedSequence pads with zeros, so step 0 would have the task's own seed.
    derived = derive_seed(seed, task, step + 1)
    random.seed(derived)
    np.random.seed(derived & 0xFFFFFFFF)
    torch.manual_seed(derived)


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Whatever is drawn inside, all generators go on outside as if nothing had been."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
