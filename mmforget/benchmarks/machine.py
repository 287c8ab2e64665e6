"""The machine: what it is, and how fast it multiplies and moves memory."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mmcv
import mmdet
import torch


def describe(device: str) -> dict[str, str | int]:
    """What a reader needs to compare figures: processor, threads, versions."""
    return {
        'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
        'processor': _processor(),
        'cores': os.cpu_count() or 0,
        'threads': torch.get_num_threads(),
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmcv': mmcv.__version__,
        'mmdet': mmdet.__version__,
        **{name: _version(name) for name in ('loralib', 'peft', 'faster-coco-eval')},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'none'


def _processor() -> str:
    path = Path('/proc/cpuinfo')
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Rates:
    """What the machine can do at best.

    Attributes:
        flops: Floating point operations a second in a large matrix product (a multiplication and
            an addition are two).
        bandwidth: Bytes a second, by the size in bytes of what is moved: small tensors stay in the
            processor's caches.
    """

    flops: float
    bandwidth: dict[int, float]

    def move_seconds(self, size: int) -> float:
        """The least time in which ``size`` bytes can be read or written."""
        # The next smaller measured size is at least as near to the processor.
        below = [rate for measured, rate in self.bandwidth.items() if measured <= size]
        fastest = max(self.bandwidth.values())
        return size / (below[-1] if below else fastest)


def measure_rates(device: str, dtype: torch.dtype = torch.float32, quick: bool = False) -> Rates:
    """Times large matrix products, and sums of tensors of several sizes.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        dtype: Of the matrices.
        quick: Smaller ones.
    """
    side = 512 if quick else (8192 if device == 'cuda' else 2048)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    flops = 2 * side**3 / _seconds_of(lambda: left @ right, device)
    bandwidth = {}
    for size in (1 << 16, 1 << 20, 1 << 24) if quick else (1 << 16, 1 << 20, 1 << 24, 1 << 28):
        # Out of place and in place are equal here: one read and one write.
        source = torch.ones(size // 8, device=device)
        target = torch.empty_like(source)

        def move(source: torch.Tensor = source, target: torch.Tensor = target) -> None:
            torch.add(source, 1.0, out=target)

        bandwidth[size] = size / _seconds_of(move, device)
    # What fits a smaller size is never slower to move; noise must not say so.
    sizes = sorted(bandwidth, reverse=True)
    for larger, smaller in zip(sizes, sizes[1:]):
        bandwidth[smaller] = max(bandwidth[smaller], bandwidth[larger])
    return Rates(flops, dict(sorted(bandwidth.items())))


def _seconds_of(work: Callable[[], object], device: str, repetitions: int = 7) -> float:
    """Least seconds of one call, over batches of calls that are long enough to be timed."""

    def seconds(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        if device == 'cuda':
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    seconds(3)
    calls = max(1, int(0.02 / max(seconds(3), 1e-7)))
    return min(seconds(calls) for _ in range(repetitions))
