"""What stages give is looked up by image and weights, and computed once."""

import pytest
import torch
from torch import nn

from mmforget.taps.stages import Stage, StageMemory, at_once
from mmforget.taps.trunk_cache import Priority, TrunkCache


class Detector(nn.Module):
    """Two convolutions, the second with a parameter of the detector's own."""

    def __init__(self):
        super().__init__()
        self.lower, self.upper = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.bias = nn.Parameter(torch.ones(2))

    def stages(self):
        return {'lower': Stage([self.lower]), 'upper': Stage([self.upper], [self.bias])}


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return Detector().eval()


def remembered(detector, cache, images, inputs, stage='lower', together=(), size=1, **options):
    """The stage's outputs, and which indices were computed together."""
    asked = []

    def compute(indices):
        asked.append(indices)
        return {'out': detector.lower(inputs[indices])}

    memory = StageMemory(cache, detector.stages, **options)
    entries = memory.entries(stage, images, compute, Priority.TRAINING, together, size)
    return [entry['out'] for entry in entries], asked


def test_an_image_is_computed_once_and_alone(detector):
    inputs = torch.randn(3, 3, 4, 4)
    inputs[2] = inputs[0]
    cache = TrunkCache(10000)
    out, asked = remembered(detector, cache, [b'a', b'b', b'a'], inputs)
    assert asked == [[0], [1]]
    for place in range(3):
        assert torch.equal(out[place], detector.lower(inputs[place : place + 1]))
        assert not out[place].requires_grad
    again, asked = remembered(detector, cache, [b'b', b'a'], inputs)
    assert not asked and torch.equal(again[0], out[1]) and torch.equal(again[1], out[0])


def test_together_means_always_as_many(detector):
    """Of those that have something in common; the others alone."""
    images = [bytes([number]) for number in range(8)]
    inputs = torch.randn(8, 3, 4, 4)
    together = ['small', 'wide', None, 'small', 'small', 'wide', 'small', 'small']
    shared = {'together': together, 'size': 4}
    _, asked = remembered(detector, TrunkCache(10000), images, inputs, **shared)
    assert sorted(asked) == [[0, 3, 4, 6], [1, 5, 5, 5], [2], [7, 7, 7, 7]]


def test_a_batch_that_is_too_small_is_not_filled_up():
    assert [at_once(images) for images in (1, 3, 4, 7, 8, 32)] == [1, 1, 4, 4, 8, 8]


def test_without_a_cache_nothing_is_kept(detector):
    inputs = torch.randn(2, 3, 4, 4)
    memory = StageMemory(None, detector.stages)
    for _ in range(2):
        out, asked = remembered(detector, None, [b'a', b'b'], inputs)
        assert asked == [[0], [1]] and torch.equal(out[1], detector.lower(inputs[1:]))
    assert memory.unknown('lower', [b'a', b'b']) == [b'a', b'b']


def test_results_are_rounded_whether_they_are_kept_or_not(detector):
    """Or a run that was resumed with an empty cache would differ."""
    inputs = torch.randn(1, 3, 4, 4)
    roomy, tight = TrunkCache(10000, dtype='bfloat16'), TrunkCache(1, dtype='bfloat16')
    (first,), _ = remembered(detector, roomy, [b'a'], inputs)
    (second,), asked = remembered(detector, roomy, [b'a'], inputs)
    (never_kept,), _ = remembered(detector, tight, [b'a'], inputs)
    assert not asked and len(tight) == 0
    assert first.dtype == torch.float32
    assert torch.equal(first, second) and torch.equal(first, never_kept)
    (exact,), _ = remembered(
        detector, TrunkCache(10000, dtype='bfloat16'), [b'a'], inputs, exact=('out',)
    )
    assert torch.equal(exact, detector.lower(inputs)) and not torch.equal(first, exact)


@pytest.mark.parametrize('change', ['lower.weight', 'upper.running_mean', 'bias'])
def test_a_stage_forgets_when_anything_below_its_output_changes(detector, change):
    inputs = torch.randn(1, 3, 4, 4)
    cache = TrunkCache(10000)
    for stage in ('lower', 'upper'):
        remembered(detector, cache, [b'a'], inputs, stage)
    with torch.no_grad():
        {**dict(detector.named_parameters()), **dict(detector.named_buffers())}[change].add_(1)
    lower, upper = (remembered(detector, cache, [b'a'], inputs, s)[1] for s in ('lower', 'upper'))
    assert lower == ([[0]] if change == 'lower.weight' else []) and upper == [[0]]


def test_another_detector_with_equal_weights_finds_what_the_first_one_left(detector):
    inputs = torch.randn(1, 3, 4, 4)
    cache = TrunkCache(10000)
    remembered(detector, cache, [b'a'], inputs)
    second, other = Detector(), Detector()
    second.load_state_dict(detector.state_dict())
    assert remembered(second, cache, [b'a'], inputs)[1] == []
    assert remembered(other, cache, [b'a'], inputs)[1] == [[0]]


def test_a_write_through_data_is_seen_by_the_next_memory(detector):
    """Every task and every evaluation has its own."""
    inputs = torch.randn(1, 3, 4, 4)
    cache = TrunkCache(10000)
    remembered(detector, cache, [b'a'], inputs)
    detector.lower.weight.data.add_(1)
    assert remembered(detector, cache, [b'a'], inputs)[1] == [[0]]


def test_autocast_gives_other_numbers(detector):
    inputs = torch.randn(1, 3, 4, 4)
    cache = TrunkCache(10000)
    (plain,), _ = remembered(detector, cache, [b'a'], inputs)
    with torch.autocast('cpu', torch.bfloat16):
        (half,), asked = remembered(detector, cache, [b'a'], inputs)
        assert asked == [[0]] and half.dtype == torch.bfloat16
    (again,), asked = remembered(detector, cache, [b'a'], inputs)
    assert not asked and torch.equal(plain, again)
