"""Peak memory of one call, measured in a fresh process for each variant.

On a CPU it is the kernel's high-water mark of resident memory less what is resident when the model
is built; on a GPU torch's allocator tells. ``ru_maxrss`` would not do: a child begins with its
parent's.
"""

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from mmforget.benchmarks.measurement import Action, Case, Settings

_STATUS = Path('/proc/self/status')


def peak_memory(case: Case, variant: str, settings: Settings) -> int | None:
    """Bytes at the peak of one warm call beyond the built model, the filled cache included.

    Args:
        case: The case; the fresh process builds it anew from its level and title.
        variant: Which of its variants.
        settings: As in this process.

    Returns:
        Bytes; ``None`` where neither the kernel (no Linux) nor a GPU tells.

    Raises:
        RuntimeError: The process failed; the message ends with what it said last.
    """
    if settings.device == 'cpu' and not _STATUS.is_file():
        return None
    job = {'level': case.level, 'title': case.title, 'variant': variant}
    # Allocator settings that keep freed memory would count it as used.
    environment = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmforget.benchmarks.memory_worker'],
        input=json.dumps({**job, 'settings': asdict(settings), 'threads': torch.get_num_threads()}),
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(
            f'The memory of {case.level}, {case.title}, {variant} could not be measured: its '
            f'process ended with {result.returncode}. It said: {result.stderr.strip()[-1500:]}'
        )
    return int(result.stdout.strip().splitlines()[-1])


def measure(action: Action, device: str) -> int:
    """Bytes at the peak of one warm call, in this process, which has just built the action."""
    gc.collect()
    before = _used(device)
    action.warm()
    gc.collect()
    _forget_peak(device)
    action()
    return max(_peak(device) - before, 0)


def _used(device: str) -> int:
    return torch.cuda.memory_allocated() if device == 'cuda' else _status('VmRSS')


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == 'cuda' else _status('VmHWM')


def _forget_peak(device: str) -> None:
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    else:
        Path('/proc/self/clear_refs').write_text('5')


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'{_STATUS} says nothing of {key}; expected a line {key}: N kB.')
