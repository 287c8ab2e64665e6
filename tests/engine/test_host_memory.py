"""Freed memory is kept, which shows in the pages that the system has to bring again."""

import os
import platform
import subprocess
import sys

import pytest

from mmforget.engine import host_memory, loops

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='is about glibc')

# Blocks larger than glibc keeps by itself, as the first layers of a backbone give them.
SCRIPT = """
import resource, runpy, sys
import numpy as np
keep_freed_memory = runpy.run_path(sys.argv[2])['keep_freed_memory']
print(keep_freed_memory() if sys.argv[1] == 'keep' else None)
def step():
    for block in [np.ones(40 * 2**20, dtype=np.uint8) for _ in range(int(sys.argv[3]))]:
        del block
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(argument, blocks=3, **environment):
    """What was done, and page faults of five steps."""
    clean = {name: value for name, value in os.environ.items() if 'MALLOC' not in name}
    found = subprocess.run(
        [sys.executable, '-c', SCRIPT, argument, host_memory.__file__, str(blocks)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    done, number = found.stdout.split()
    return done, int(number)


def test_pages_are_not_asked_for_again():
    done, kept = faults('keep')
    _, given_back = faults('leave')
    assert done == 'True'
    # With pages of 4 kB each step has 30,000 of them; huge pages make them fewer.
    assert kept < given_back / 10


def test_more_than_a_gigabyte_is_kept_as_well():
    step = 30 * 40 * 2**20 / 4096
    assert faults('keep', blocks=30)[1] < step / 10


def test_what_the_environment_says_stays():
    assert faults('keep', MALLOC_TRIM_THRESHOLD_='100000')[0] == 'False'
    assert faults('keep', GLIBC_TUNABLES='glibc.malloc.arena_max=2')[0] == 'False'


def test_a_run_on_a_cpu_asks_for_it(make_runner, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loops, 'keep_freed_memory', lambda: asked.append(True))
    changes = {'train_cfg.max_steps': 1, 'val_cfg': None, 'val_dataloader': None}
    make_runner(tmp_path, **changes, val_evaluator=None).train()
    assert asked == [True]
