"""What the trunk gives is kept within bounds: in memory, then in files, dearest last to go."""

import pytest
import torch

from mmforget.taps.trunk_cache import Priority, TrunkCache


def outputs(value=0.0, numbers=10):
    return {'memory': torch.full((1, numbers), value)}


def held(cache, *names, stage='features'):
    return [name for name in names if cache.get(stage, name) is not None]


def test_oldest_entries_leave_when_the_bound_is_reached():
    cache = TrunkCache(max_bytes=3 * 40)
    for name in (b'a', b'b', b'c'):
        cache.put('features', name, outputs())
    assert cache.get('features', b'a') is not None  # Used last, so b is the oldest now.
    cache.put('features', b'd', outputs())
    assert held(cache, b'a', b'b', b'c', b'd') == [b'a', b'c', b'd']
    assert len(cache) == 3 and cache.bytes == 120


def test_evaluation_keeps_what_fits_and_replaces_only_what_lies_below():
    cache = TrunkCache(max_bytes=3 * 40)
    cache.put('features', b'a', outputs(), Priority.TRAINING)
    cache.put('features', b'b', outputs(), Priority.BELOW)
    cache.put('features', b'c', outputs(), Priority.EVALUATION)
    cache.put('features', b'd', outputs(), Priority.BELOW)
    assert held(cache, b'a', b'b', b'c', b'd') == [b'a', b'b', b'c']
    cache.put('features', b'e', outputs(), Priority.EVALUATION)
    cache.put('features', b'f', outputs(), Priority.EVALUATION)
    assert held(cache, b'a', b'b', b'c', b'd', b'e', b'f') == [b'a', b'c', b'e']
    cache.put('features', b'g', outputs(), Priority.TRAINING)
    assert b'a' in held(cache, b'a', b'c', b'e') and cache.bytes == 120


def test_what_is_larger_than_the_bound_leaves_the_rest_alone():
    cache = TrunkCache(max_bytes=60)
    cache.put('features', b'a', outputs())
    cache.put('features', b'b', outputs(numbers=100))
    assert held(cache, b'a', b'b') == [b'a'] and cache.bytes == 40


def test_an_entry_put_twice_is_counted_once():
    cache = TrunkCache(max_bytes=1000)
    cache.put('features', b'a', outputs(1.0))
    cache.put('features', b'a', outputs(2.0), Priority.BELOW)
    assert cache.bytes == 40 and len(cache) == 1
    assert cache.get('features', b'a')['memory'][0, 0] == 2


def test_other_weights_empty_their_stage_alone():
    cache = TrunkCache(max_bytes=1000)
    cache.set_weights('encoder', b'1')
    cache.put('encoder', b'a', outputs())
    cache.put('features', b'a', outputs())
    cache.set_weights('encoder', b'1')
    assert cache.get('encoder', b'a') is not None and not cache.has_changed('encoder')
    cache.set_weights('encoder', b'2')
    assert cache.get('encoder', b'a') is None and cache.has_changed('encoder')
    assert cache.get('features', b'a') is not None and not cache.has_changed('features')
    assert cache.bytes == 40


def test_memory_first_then_files_then_the_oldest_leave(tmp_path):
    """What comes back from a file is what went into it, to the bit, in all its types."""
    entry = {
        'memory': torch.randn(1, 8),
        'mask': torch.rand(1, 5) > 0.5,
        'shapes': torch.arange(4).reshape(1, 2, 2),
        'half': torch.randn(1, 8).bfloat16(),
    }
    size = sum(t.numel() * t.element_size() for t in entry.values())
    cache = TrunkCache(size, 2 * size, folder=tmp_path)
    cache.put('encoder', b'a', entry)
    assert (cache.bytes, cache.disk_bytes) == (size, 0) and not list(tmp_path.iterdir())
    cache.put('encoder', b'b', entry)
    cache.put('encoder', b'c', entry)
    assert (cache.bytes, cache.disk_bytes) == (size, 2 * size)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob('*.safetensors'))) == len(list(folder.iterdir())) == 2
    for name in (b'a', b'b', b'c'):
        found = cache.get('encoder', name)
        assert found.keys() == entry.keys()
        for key, tensor in entry.items():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)
    cache.put('encoder', b'd', entry)  # Takes the place of a, the oldest.
    assert held(cache, b'a', b'b', b'c', b'd', stage='encoder') == [b'b', b'c', b'd']
    cache.set_weights('encoder', b'1')
    cache.set_weights('encoder', b'2')
    assert not list(folder.iterdir()) and cache.disk_bytes == cache.bytes == len(cache) == 0


def test_closing_removes_the_files_and_keeps_what_is_in_memory(tmp_path):
    cache = TrunkCache(40, 100, folder=tmp_path / 'new')
    cache.put('encoder', b'a', outputs())
    cache.put('encoder', b'b', outputs())
    assert list((tmp_path / 'new').iterdir())
    cache.close()
    assert not list((tmp_path / 'new').iterdir()) and cache.disk_bytes == 0
    assert held(cache, b'a', b'b', stage='encoder') == [b'a']
    cache.put('encoder', b'b', outputs())
    assert held(cache, b'b', stage='encoder')
    cache.close()


@pytest.mark.parametrize('alone', [True, False])
def test_what_a_killed_run_left_is_removed_where_no_other_can_be(tmp_path, alone):
    left = tmp_path / 'trunk_cache_left'
    left.mkdir()
    (left / '0.part').write_bytes(b'half')
    (tmp_path / 'task_1.pth').touch()
    cache = TrunkCache(0, 100, folder=tmp_path, alone=alone)
    assert left.exists()  # Nothing is touched before something is written.
    cache.put('encoder', b'a', outputs())
    assert left.exists() != alone and (tmp_path / 'task_1.pth').exists()
    cache.close()


def test_a_disk_that_cannot_be_written_is_done_without(tmp_path):
    cache = TrunkCache(40, 4000, folder=tmp_path / 'file' / 'folder')
    (tmp_path / 'file').touch()
    cache.put('encoder', b'a', outputs())
    cache.put('encoder', b'b', outputs(), Priority.EVALUATION)
    assert held(cache, b'a', b'b', stage='encoder') == [b'a'] and cache.max_disk_bytes == 0
    cache.put('encoder', b'c', outputs())
    assert held(cache, b'a', b'c', stage='encoder') == [b'c']


def test_bfloat16_keeps_half_the_bits_of_float32_alone():
    cache = TrunkCache(1000, dtype='bfloat16')
    entry = {
        'memory': torch.randn(1, 8),
        'ratios': torch.rand(1, 4),
        'mask': torch.rand(1, 4) > 0.5,
        'half': torch.randn(1, 8).half(),
    }
    kept = cache.rounded(entry, exact=('ratios',))
    cache.put('encoder', b'a', kept)
    assert cache.bytes == 2 * 8 + 4 * 4 + 4 + 2 * 8
    back = cache.restored(cache.get('encoder', b'a'))
    assert {n: t.dtype for n, t in back.items()} == {n: t.dtype for n, t in entry.items()}
    assert torch.equal(back['memory'], entry['memory'].bfloat16().float())
    assert not torch.equal(back['memory'], entry['memory'])
    for name in ('ratios', 'mask', 'half'):
        assert torch.equal(back[name], entry[name])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'max_bytes': 0}, 'more than 0'),
        ({'max_bytes': -1, 'max_disk_bytes': 5}, 'no negative'),
        ({'max_bytes': 1, 'max_disk_bytes': 5}, 'needs a folder'),
        ({'max_bytes': 1, 'dtype': 'int8'}, "dtype='int8'; expected one of float32, bfloat16"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrunkCache(**arguments)


def test_a_file_that_is_gone_is_a_miss(tmp_path):
    cache = TrunkCache(0, 10**6, folder=tmp_path)
    cache.put('stage', b'a', {'out': torch.ones(1, 4)})
    next(tmp_path.rglob('*.safetensors')).unlink()
    assert cache.get('stage', b'a') is None
    assert len(cache) == 0 and cache.disk_bytes == 0
    cache.close()
