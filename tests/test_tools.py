"""The launchers: what they hand on, and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[1] / 'tools'
LAUNCHER = TOOLS / 'dist_train.sh'


def launch(*arguments, **environment):
    return subprocess.run(
        [str(LAUNCHER), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_dist_train_is_executable_and_parses():
    assert os.access(LAUNCHER, os.X_OK)
    subprocess.run(['bash', '-n', str(LAUNCHER)], check=True)


def test_dist_train_says_how_it_is_used():
    result = launch('config.py')
    assert result.returncode == 2
    assert 'tools/dist_train.sh CONFIG GPUS' in result.stderr


def test_dist_train_hands_everything_on():
    """With ``echo`` for Python, it shows the command that it would run."""
    result = launch(
        *('a config.py', '4', '--resume', '--cfg-options', 'a=b c'),
        **{'PYTHON': '/bin/echo', 'NNODES': '2', 'NODE_RANK': '1', 'PORT': '30000'},
    )
    words = result.stdout.split()
    assert words[:2] == ['-m', 'torch.distributed.run']
    assert {'--nnodes=2', '--node_rank=1', '--master_port=30000', '--nproc_per_node=4'} <= {*words}
    rest = f'{TOOLS}/train.py a config.py --launcher pytorch --resume --cfg-options a=b c'
    assert result.stdout.strip().endswith(rest)


@pytest.mark.slow
def test_a_work_dir_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'config.py').write_text('')
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', str(TOOLS / 'train.py'), str(tmp_path / 'config.py')]
        + ['--work-dir', str(tmp_path / 'file' / 'run')],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert "file/run' cannot be written" in result.stderr
    assert 'Give another one with --work-dir' in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
def test_several_processes_without_a_gpu_are_refused(tmp_path):
    result = launch('config.py', '2', PYTHON=sys.executable, PORT='29517')
    assert result.returncode != 0
    assert 'A launcher started 2 process(es), but there is no GPU' in result.stderr
    assert 'python tools/train.py CONFIG' in result.stderr
