"""The trunk's cache in a whole run: in files, rounded, resumed, removed at the end."""

import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook

from mmforget.datasets.item_memory import ItemMemory
from mmforget.engine.caches import build_image_cache, build_trunk_cache
from mmforget.structures import StreamSampling

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


def run_config(**cache):
    """Task 1 trains the upper decoder layer, task 2 the one below what task 1 has folded."""
    return {
        'train_cfg.max_steps': 6,
        'train_cfg.scenario': {
            'tasks': [['bag', 'sneaker'], ['dress']],
            'forget': {'images': 3, 'augmentations': 2},
            'retain': {'images': 4, 'augmentations': 2},
        },
        'custom_hooks': [
            {
                'type': 'mmforget.GroupSparseLoRAHook',
                'rank': 2,
                'sparsity': {
                    'type': 'ChosenGroups',
                    'groups': [['decoder.layers.0'], ['decoder.layers.1']],
                },
            }
        ],
        **NO_VALIDATION,
        **{f'train_cfg.trunk_cache_{key}': value for key, value in cache.items()},
    }


class Killed(Exception):
    """Stands for a kill."""


class Watch(Hook):
    """Counts images in the encoder, notes the files there are, and dies if asked to."""

    def __init__(self, die_at=None):
        self.die_at, self.encoded, self.files = die_at, 0, set()

    def before_train(self, runner):
        runner.model.encoder.layers[0].register_forward_hook(self.count)

    def count(self, module, inputs, output):
        self.encoded += len(output.flatten(1).unique(dim=0))  # What fills up a batch aside.

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        cache = runner.train_loop.trunk_cache
        if cache is not None:
            self.files |= set(cache._parent.glob('trunk_cache_*/*.safetensors'))
        if batch_idx == self.die_at:
            raise Killed


def weights(folder, task):
    return torch.load(folder / f'task_{task}.pth', weights_only=True)['state_dict']


def assert_equal(folder, reference):
    for task in (1, 2):
        ours, theirs = weights(folder, task), weights(reference, task)
        assert [k for k in theirs if not torch.equal(ours[k], theirs[k])] == []


def test_in_files_as_in_memory_to_the_bit(make_runner, tmp_path):
    """And close to a run that remembers nothing, also above weights that were folded."""
    watch = {}
    for name, cache in {
        'plain': {},
        'memory': {'mb': 64},
        'files': {'disk_mb': 64},
        'elsewhere': {'disk_mb': 64, 'dir': str(tmp_path / 'fast disk')},
    }.items():
        watch[name] = Watch()
        make_runner(tmp_path / name, watch[name], **run_config(**cache)).train()
    assert_equal(tmp_path / 'files', tmp_path / 'memory')
    assert_equal(tmp_path / 'elsewhere', tmp_path / 'memory')
    for task in (1, 2):
        cached = weights(tmp_path / 'memory', task)
        for key, value in weights(tmp_path / 'plain', task).items():
            torch.testing.assert_close(cached[key], value, rtol=1e-3, atol=1e-4)
    assert watch['files'].files and not any(path.exists() for path in watch['files'].files)
    assert {p.parents[1] for p in watch['files'].files} == {tmp_path / 'files'}
    assert {p.parents[1] for p in watch['elsewhere'].files} == {tmp_path / 'fast disk'}
    assert not watch['memory'].files and not list((tmp_path / 'fast disk').iterdir())
    # Two tasks of seven images with two variants each.
    assert watch['memory'].encoded <= 28 < watch['plain'].encoded


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_resumed_with_an_empty_cache_to_the_bit(make_runner, tmp_path, dtype):
    """Killed inside both tasks; what a killed run leaves is removed."""
    config = run_config(disk_mb=64, dtype=dtype)
    config['train_cfg.checkpoint_interval'] = 2
    make_runner(tmp_path / 'reference', **config).train()
    folder = tmp_path / 'killed'
    resume = {}
    for at in (3, 9):
        watch = Watch(die_at=at)
        with pytest.raises(Killed):
            make_runner(folder, watch, **config, **resume).train()
        assert watch.files and not any(path.exists() for path in watch.files)
        resume = {'resume': True, 'load_from': None}
    left = folder / 'trunk_cache_left'
    left.mkdir()
    make_runner(folder, **config, **resume).train()
    assert not left.exists()
    assert_equal(folder, tmp_path / 'reference')


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'memory_mb': -1}, ValueError, 'trunk_cache_mb is -1; expected a whole number of MB'),
        ({'disk_mb': 1.5}, ValueError, 'trunk_cache_disk_mb is 1.5'),
        ({'dtype': 'half'}, ValueError, "trunk_cache_dtype is 'half'; expected 'float32' or"),
        ({'disk_mb': 1, 'folder': __file__}, OSError, 'trunk_cache_dir is .*cannot be written'),
    ],
)
def test_arguments_that_are_refused(tmp_path, arguments, error, message):
    given = {'memory_mb': 0, 'disk_mb': 0, 'folder': None, 'dtype': 'float32'}
    with pytest.raises(error, match=message):
        build_trunk_cache(**(given | arguments), work_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_nothing_is_remembered_where_nothing_is_allowed(tmp_path):
    assert build_trunk_cache(0, 0, None, 'float32', str(tmp_path)) is None


def test_loaded_images_are_kept_to_the_bit(make_runner, tmp_path, monkeypatch):
    """Each variant of an image is loaded once a task, and the run is the same."""
    loaded = []
    load = LoadImageFromFile.transform
    monkeypatch.setattr(
        LoadImageFromFile, 'transform', lambda self, data: loaded.append(1) or load(self, data)
    )
    counts = []
    for name, megabytes in (('reference', 0), ('kept', 16)):
        loaded.clear()
        config = run_config(mb=64) | {'train_cfg.image_cache_mb': megabytes}
        make_runner(tmp_path / name, **config).train()
        counts.append(len(loaded))
    assert_equal(tmp_path / 'kept', tmp_path / 'reference')
    # Two tasks, seven images with two variants each.
    assert counts[1] <= 28 < counts[0]


def test_image_caches_that_are_refused():
    fresh, fixed = StreamSampling(images=4), StreamSampling(images=4, augmentations=2)
    with pytest.raises(ValueError, match='image_cache_mb is 8, but no stream has augmentations'):
        build_image_cache(8, {'forget': fresh}, {})
    with pytest.raises(ValueError, match='num_workers 2: each loading process'):
        build_image_cache(8, {'forget': fixed}, {'num_workers': 2})
    with pytest.raises(ValueError, match='image_cache_mb is -1; expected a whole number'):
        build_image_cache(-1, {'forget': fixed}, {})
    assert build_image_cache(0, {'forget': fresh}, {'num_workers': 2}) is None
    assert isinstance(build_image_cache(8, {'forget': fresh, 'retain': fixed}, {}), ItemMemory)
