"""The ``mmforget://`` scheme, and local checkpoints loaded with torch's check on."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from mmforget.models.checkpoints import find_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMFORGET_CACHE', str(tmp_path))
    (tmp_path / 'weights').mkdir()
    return tmp_path / 'weights'


def load(name, **kwargs):
    return CheckpointLoader.load_checkpoint(str(name), **kwargs)


def test_half_precision_becomes_single(cache):
    state = {
        'half': torch.tensor([0.5, 1.25], dtype=torch.float16),
        'single': torch.tensor([0.1]),
        'count': torch.tensor(7),
    }
    save_file(state, cache / 'toy.safetensors')
    loaded = load('mmforget://toy', map_location='cpu')
    assert loaded['meta'] == {}
    assert {k: v.dtype for k, v in loaded['state_dict'].items()} == {
        'half': torch.float32,
        'single': torch.float32,
        'count': torch.int64,
    }
    assert loaded['state_dict']['half'].tolist() == [0.5, 1.25]
    assert torch.equal(loaded['state_dict']['single'], state['single'])


def test_a_map_location_may_be_a_function(cache):
    save_file({'x': torch.ones(2)}, cache / 'toy.safetensors')
    loaded = load('mmforget://toy', map_location=lambda storage, location: storage)
    assert loaded['state_dict']['x'].device.type == 'cpu'


def test_weights_to_be_converted_first(cache):
    with pytest.raises(FileNotFoundError, match='python tools/model_converters/mobilenetv2'):
        load('mmforget://mobilenetv2_imagenet')


def test_unknown_weights(cache):
    with pytest.raises(FileNotFoundError, match='mmforget://nope does not exist.*mobilenetv2'):
        load('mmforget://nope')
    with pytest.raises(FileNotFoundError):
        find_weights('')


def test_local_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth can not be found'):
        load(tmp_path / 'absent.pth')
    save_file({'x': torch.ones(2)}, tmp_path / 'plain.safetensors')
    assert torch.equal(load(tmp_path / 'plain.safetensors')['state_dict']['x'], torch.ones(2))


@pytest.fixture(scope='module')
def mmengine_checkpoint(make_runner, tmp_path_factory):
    """What mmengine's own loop and CheckpointHook write after real training steps."""
    folder = tmp_path_factory.mktemp('mmengine')
    runner = make_runner(
        folder,
        train_cfg={'_delete_': True, 'type': 'IterBasedTrainLoop', 'max_iters': 2},
        custom_hooks=[],
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        param_scheduler=None,
        **{'default_hooks.checkpoint.by_epoch': False},
    )
    runner.train()
    return folder / 'iter_2.pth', runner.model


def test_mmengines_own_checkpoint(mmengine_checkpoint):
    """Its message hub holds HistoryBuffers and numpy objects, which torch refuses by itself."""
    path, model = mmengine_checkpoint
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    loaded = load(path, map_location='cpu')
    state = model.state_dict()
    assert loaded['state_dict'].keys() == state.keys()
    assert all(torch.equal(loaded['state_dict'][k], v) for k, v in state.items())
    assert loaded['meta']['iter'] == 2
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    values, counts = buffer.data
    assert len(values) == 2 and np.isfinite(values).all()
    assert len(loaded['optimizer']['state']) > 0
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # The exceptions held for our load alone.


class Reach:
    """Reaches for another attribute in the way in which HistoryBuffer's own are pickled."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_the_way_to_a_buffers_statistics_leads_nowhere_else(tmp_path):
    torch.save({'meta': {'x': Reach()}}, tmp_path / 'reach.pth')
    with pytest.raises(RuntimeError, match='reach.pth holds objects that are not plain data'):
        load(tmp_path / 'reach.pth')


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('legacy', [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, legacy):
    trace = tmp_path / 'it_ran'
    content = {'state_dict': {'x': torch.ones(2)}, 'meta': {'hook': Evil(trace)}}
    torch.save(content, tmp_path / 'evil.pth', _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RuntimeError, match='evil.pth holds objects that are not plain data'):
        load(tmp_path / 'evil.pth')
    assert not trace.exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert trace.exists(), 'the file is as evil as it claims'


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('page.pth', b'<!DOCTYPE html>', "15 bytes and begins with b'<!DOCTYPE html>'.*torch.save"),
        ('pointer.pth', b'version https://git-lfs', 'pointer.pth is no checkpoint.*Git LFS'),
        ('empty.pth', b'', r"empty.pth is no checkpoint.*0 bytes and begins with b''"),
        ('book.pth', b'PK\x03\x04 and more', 'book.pth is no checkpoint, or not a whole one'),
        ('page.safetensors', b'<!DOCTYPE html>', 'expected a safetensors file.*again'),
        ('empty.safetensors', b'', 'expected a safetensors file'),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize('legacy', [False, True])
def test_a_checkpoint_that_was_not_copied_to_its_end(tmp_path, legacy):
    path = tmp_path / 'cut.pth'
    content = {'state_dict': {'x': torch.ones(1000)}, 'meta': {}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load(path)['state_dict']['x'], torch.ones(1000))
    cut(path)
    with pytest.raises(ValueError, match='cut.pth is no checkpoint, or not a whole one'):
        load(path)


def test_a_safetensors_file_that_was_not_copied_to_its_end(tmp_path):
    save_file({'x': torch.ones(1000)}, tmp_path / 'cut.safetensors')
    cut(tmp_path / 'cut.safetensors')
    with pytest.raises(ValueError, match='cut.safetensors is no checkpoint, or not a whole one'):
        load(tmp_path / 'cut.safetensors')
