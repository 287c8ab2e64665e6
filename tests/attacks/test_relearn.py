"""The attack trains what it says and nothing else, and finds what is merely silenced."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmforget.attacks import Relearn
from mmforget.attacks.relearn import RelearnPoint
from mmforget.testing import tiny_config

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'attack.py'


@pytest.fixture
def tiny(tiny_data):
    config = tiny_config(tiny_data, 'unused')
    return Config(copy.deepcopy(config.to_dict()))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'steps': (10, 0)}, r'steps=\(10, 0\); expected ascending'),
        ({'steps': ()}, 'expected ascending'),
        ({'steps': (-1, 4)}, 'expected ascending'),
        ({'images': 0}, 'images=0; expected a positive number'),
        ({'learning_rate': -1.0}, 'learning_rate=-1.0'),
    ],
)
def test_arguments_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Relearn(**changes)


def test_unknown_class_and_foreign_checkpoint(tiny, tiny_base, tmp_path):
    with pytest.raises(ValueError, match="'hat'"):
        Relearn().run(tiny, tiny_base, ['hat'])
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth'):
        Relearn().run(tiny, tmp_path / 'other.pth', ['bag'])


def test_points_are_those_asked_for_and_repeat(tiny, tiny_base):
    attack = Relearn(images=4, steps=(0, 1, 3), batch_size=2, rank=2)
    points = attack.run(tiny, tiny_base, ['bag'])
    assert [point.steps for point in points] == [0, 1, 3]
    assert all(isinstance(point, RelearnPoint) for point in points)
    assert attack.run(tiny, tiny_base, ['bag']) == points


def test_the_command(tiny, tiny_base, tmp_path):
    tiny.dump(tmp_path / 'tiny.py')
    arguments = [str(tmp_path / 'tiny.py'), str(tiny_base), '--attack', 'relearn']
    options = ['--images', '2', '--steps', '0', '1', '--json', str(tmp_path / 'points.json')]

    def attack(*classes):
        return subprocess.run(
            [sys.executable, str(SCRIPT), *arguments, '--classes', *classes, *options],
            capture_output=True,
            text=True,
        )

    found = attack('bag', 'sneaker')
    assert found.returncode == 0, found.stderr
    content = json.loads((tmp_path / 'points.json').read_text())
    assert [point['steps'] for point in content['points']] == [0, 1]
    assert content['attack']['images'] == 2
    assert '| steps of relearning | AP_f' in found.stdout
    refused = attack('hat')
    assert refused.returncode == 2
    assert "'hat'" in refused.stderr and 'Traceback' not in refused.stderr
