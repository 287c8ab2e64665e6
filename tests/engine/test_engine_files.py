"""Files that are whole or absent; the results file; seeds."""

import json
import pickle

import pytest
import torch
from mmengine.logging import MessageHub

from mmforget.engine.checkpoints import pack_message_hub, save_atomically, unpack_message_hub
from mmforget.engine.randomness import derive_seed, seed_step
from mmforget.engine.results import read_results, write_atomically, write_results


class Unsaveable:
    """Breaks a save halfway."""

    def __reduce__(self):
        raise OSError('the disk is full')


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / 'resume.pth'
    save_atomically({'x': torch.ones(3)}, path)
    with pytest.raises(OSError, match='disk is full'):
        save_atomically({'x': torch.zeros(100), 'y': Unsaveable()}, path)
    assert torch.equal(torch.load(path, weights_only=True)['x'], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ['resume.pth'], 'no temporary file stays'


def test_an_interrupted_text_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / 'forgetting.json'
    write_atomically(path, 'old')

    def broken(descriptor):
        raise OSError('the disk is full')

    monkeypatch.setattr('os.fsync', broken)
    with pytest.raises(OSError, match='disk is full'):
        write_atomically(path, 'new')
    assert path.read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['forgetting.json']


def test_results_file(tmp_path):
    path = write_results(tmp_path, None, [])
    assert json.loads(path.read_text()) == {'schema': 1, 'run': {}, 'base': {}, 'tasks': []}
    write_results(tmp_path, {'full': {'AP': 0.5}}, [{'task': 1, 'H': None}], {'seed': 42})
    assert read_results(path) == {
        'schema': 1,
        'run': {'seed': 42},
        'base': {'full': {'AP': 0.5}},
        'tasks': [{'task': 1, 'H': None}],
    }


@pytest.mark.parametrize('document', ['{"schema": 2, "tasks": []}', '{"tasks": []}'])
def test_results_of_another_schema_are_refused(tmp_path, document):
    (tmp_path / 'forgetting.json').write_text(document)
    with pytest.raises(ValueError, match='has schema (2|None), expected 1'):
        read_results(tmp_path / 'forgetting.json')


def test_message_hub_travels_as_plain_types(tmp_path):
    """Loadable with torch's check on, and afterwards what mmengine expects."""
    hub = MessageHub.get_instance('travelling')
    for value in (1.0, 2.0, 6.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    hub.update_info('strange', pickle.Pickler)
    torch.save(pack_message_hub(hub), tmp_path / 'hub.pth')
    state = torch.load(tmp_path / 'hub.pth', weights_only=True)
    other = MessageHub.get_instance('arrived')
    other.load_state_dict(unpack_message_hub(state))
    assert other.get_scalar('train/loss').mean() == 3.0
    assert other.get_scalar('train/loss').current() == 6.0
    assert other.get_info('iter') == 3 and other.get_info('strange') is None


def test_seeds_depend_on_every_key():
    seeds = {derive_seed(*keys) for keys in ((3, 0), (3, 1), (4, 0), (0, 3), (3, 0, 1), (3, 1, 1))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, 1, 7) == derive_seed(3, 1, 7)


def test_the_first_step_does_not_repeat_the_tasks_own_draws():
    """Adapters are drawn from (seed, task), dropout from (seed, task, step)."""
    seed_step(3, 0, 0)
    first = torch.rand(4)
    torch.manual_seed(derive_seed(3, 0))
    assert not torch.equal(torch.rand(4), first)


def test_a_step_draws_the_same_whatever_came_before():
    seed_step(3, 1, 7)
    first = torch.rand(4)
    torch.rand(100)
    seed_step(3, 1, 7)
    assert torch.equal(torch.rand(4), first)
    seed_step(3, 1, 8)
    assert not torch.equal(torch.rand(4), first)
