"""Images and weights are told by content; weights are read again only when they may differ."""

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from mmforget.digests import PIXELS
from mmforget.taps.fingerprints import Fingerprints, image_keys


def keys(images, shape=(4, 5), pixels=None):
    sample = DetDataSample(metainfo={'img_shape': shape, **({PIXELS: pixels} if pixels else {})})
    return image_keys(images, [sample] * len(images))


def test_equal_pixels_give_equal_keys_whatever_the_batch():
    images = torch.randn(3, 3, 4, 5)
    whole = keys(images)
    assert len(set(whole)) == 3
    assert keys(images[1:2].clone()) == whole[1:2]
    assert keys(images.flip(-1))[0] != whole[0]


def test_another_padding_is_another_image():
    image = torch.zeros(1, 3, 4, 6)
    assert keys(image) != keys(torch.zeros(1, 3, 6, 4))
    assert keys(image) != keys(torch.zeros(1, 3, 4, 8))
    assert keys(image, (4, 6)) != keys(image, (4, 5))


def test_pixels_that_are_known_are_not_read_but_their_shapes_are():
    image = torch.zeros(1, 3, 4, 6)
    known = keys(image, pixels=b'known')
    assert known == keys(torch.ones(1, 3, 4, 6), pixels=b'known') != keys(image, pixels=b'other')
    assert known != keys(torch.zeros(1, 3, 4, 8), pixels=b'known')
    assert known != keys(image, (4, 6), pixels=b'known')


def weights(module):
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize('name', ['weight', 'running_mean', 'num_batches_tracked'])
def test_a_change_in_place_is_seen(name):
    module, fingerprints = nn.BatchNorm2d(2), Fingerprints()
    before = fingerprints.of(weights(module))
    assert fingerprints.of(weights(module)) == before
    with torch.no_grad():
        getattr(module, name).add_(1)
    after = fingerprints.of(weights(module))
    assert after != before == Fingerprints().of(weights(nn.BatchNorm2d(2)))
    with torch.no_grad():
        getattr(module, name).sub_(1)
    assert fingerprints.of(weights(module)) == before


def test_a_new_parameter_is_seen_wherever_its_memory_lies():
    """The allocator likes to give a freed address to the next tensor of the size."""
    layer, fingerprints = nn.Linear(8, 8, bias=False), Fingerprints()
    seen = {fingerprints.of(layer.parameters())}
    for value in range(1, 20):
        layer.weight = None
        layer.weight = nn.Parameter(torch.full((8, 8), float(value)))
        seen.add(fingerprints.of(layer.parameters()))
    assert len(seen) == 20


def test_order_shape_and_type_count():
    ones = torch.ones(2, 3)
    of = [
        [ones, ones * 2],
        [ones * 2, ones],
        [ones.reshape(3, 2), ones * 2],
        [ones.int(), ones * 2],
        [ones],
    ]
    assert len({Fingerprints().of(tensors) for tensors in of}) == len(of)
    assert Fingerprints().of([torch.ones(2).bfloat16()])
