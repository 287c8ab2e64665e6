"""Digests of images are remembered as long as nobody writes to them."""

import copy

import pytest
import torch

from mmforget import digests
from mmforget.digests import content_digest, image_digest


@pytest.fixture
def reads(monkeypatch):
    """Every tensor whose content was read."""
    found = []

    def counted(tensor, *args):
        found.append(tensor)
        return content_digest(tensor, *args)

    monkeypatch.setattr(digests, 'content_digest', counted)
    return found


def test_an_image_is_read_once_and_again_when_it_was_written_to(reads):
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    first = image_digest(image)
    assert image_digest(image) == first == content_digest(image)
    assert len(reads) == 1
    image[0, 0, 0] = 255
    changed = image_digest(image)
    assert changed == content_digest(image) != first
    assert image_digest(image.clone()) == changed
    assert len(reads) == 3


@pytest.mark.parametrize('copied', [copy.copy, copy.deepcopy])
def test_a_copy_is_read_by_itself(copied):
    """Copies take attributes along, and begin with a version of their own."""
    image = torch.zeros(3, 2, 2)
    for _ in range(2):
        image += 1
    image_digest(image)
    other = copied(image)
    for value in (5, 6):
        other[0] = value
        assert image_digest(other) == content_digest(other)


def test_a_tensor_of_inference_mode_is_read_each_time(reads):
    with torch.inference_mode():
        image = torch.zeros(3, 2, 2)
        image_digest(image)
        image[0] = 1
        assert image_digest(image) == content_digest(torch.tensor(image.tolist()))
    assert len(reads) == 2
