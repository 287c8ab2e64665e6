"""What the trunk gives is remembered by content, and only while it is still true."""

import pytest
import torch
from torch import nn

from mmforget.taps.trunk_cache import TrunkCache, digests


def test_equal_pixels_give_equal_digests_whatever_the_batch():
    images = torch.randn(3, 3, 4, 5)
    whole = digests(images)
    assert len(set(whole)) == 3
    assert digests(images[1:2].clone()) == whole[1:2]
    assert digests(images.flip(-1))[0] != whole[0]


def test_another_padding_is_another_image():
    image = torch.zeros(1, 3, 4, 6)
    assert digests(image) != digests(torch.zeros(1, 3, 6, 4))
    assert digests(image) != digests(torch.zeros(1, 3, 4, 8))


def test_oldest_entries_leave_when_the_bound_is_reached():
    cache = TrunkCache(max_bytes=3 * 40)
    for name in (b'a', b'b', b'c'):
        cache.put('features', name, [torch.zeros(10)])
    assert cache.get('features', b'a') is not None  # Used last, so b is the oldest now.
    cache.put('features', b'd', [torch.zeros(10)])
    assert cache.get('features', b'b') is None
    assert cache.get('features', b'a') is not None
    assert len(cache) == 3 and cache.bytes == 120


def test_without_eviction_what_does_not_fit_is_not_kept():
    cache = TrunkCache(max_bytes=2 * 40)
    for name in (b'a', b'b', b'c'):
        cache.put('features', name, [torch.zeros(10)], evict=False)
    assert cache.get('features', b'a') is not None and cache.get('features', b'b') is not None
    assert cache.get('features', b'c') is None and cache.bytes == 80


@pytest.mark.parametrize('change', ['parameter', 'buffer'])
def test_a_changed_weight_empties_its_stage_alone(change):
    module = nn.BatchNorm2d(2)
    cache = TrunkCache(max_bytes=1000)
    cache.check_weights('encoder', [module])
    cache.put('encoder', b'a', [torch.zeros(1)])
    cache.put('features', b'a', [torch.zeros(1)])
    cache.check_weights('encoder', [module])
    assert cache.get('encoder', b'a') is not None
    with torch.no_grad():
        (module.weight if change == 'parameter' else module.running_mean).add_(1)
    cache.check_weights('encoder', [module])
    assert cache.get('encoder', b'a') is None
    assert cache.get('features', b'a') is not None
    assert cache.bytes == 4


def test_another_detector_with_equal_weights_finds_what_the_first_one_left():
    torch.manual_seed(0)
    first, other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    cache = TrunkCache(max_bytes=1000)
    cache.check_weights('features', [first])
    cache.put('features', b'a', [torch.zeros(1)])
    second = nn.Conv2d(3, 2, 1)
    second.load_state_dict(first.state_dict())
    cache.check_weights('features', [second])
    assert cache.get('features', b'a') is not None
    cache.check_weights('features', [other])
    assert cache.get('features', b'a') is None


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ValueError, match='more than 0'):
        TrunkCache(0)
