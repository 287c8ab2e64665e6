"""The fresh process that ``memory.peak_memory`` starts: a job on stdin, bytes on stdout."""

import contextlib
import json
import logging
import sys

import torch

from mmforget.benchmarks.levels import find_case
from mmforget.benchmarks.measurement import Settings
from mmforget.benchmarks.memory import measure


def main() -> None:
    """Builds one variant and measures one call of it."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job['threads'])
    logging.disable(logging.WARNING)
    settings = Settings(**job['settings'])
    with contextlib.redirect_stdout(sys.stderr):
        case = find_case(job['level'], job['title'], settings)
        peak = measure(case.variants[job['variant']](), settings.device)
    print(peak)


if __name__ == '__main__':
    main()
