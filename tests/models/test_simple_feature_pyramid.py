"""ViTDet's pyramid: sizes of its levels, and every weight in use."""

import pytest
import torch

pytest.importorskip('timm')

from mmforget.models.necks import SimpleFeaturePyramid  # noqa: E402


@pytest.mark.parametrize(
    ('options', 'sizes'),
    [
        (dict(), [(20, 28), (10, 14), (5, 7), (2, 3), (1, 2)]),
        (dict(num_outs=4), [(20, 28), (10, 14), (5, 7), (2, 3)]),
        (dict(scales=(2, 1), num_outs=3), [(10, 14), (5, 7), (3, 4)]),
    ],
)
def test_levels(options, sizes):
    neck = SimpleFeaturePyramid(16, 8, **options)
    levels = neck((torch.zeros(1, 4, 9, 9), torch.randn(2, 16, 5, 7)))
    assert [tuple(level.shape) for level in levels] == [(2, 8, *size) for size in sizes]
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_regions_are_read_as_they_lie():
    """MMCV's RoIAlign takes the memory of a map as it comes, whatever its strides say."""
    from mmcv.ops import RoIAlign

    torch.manual_seed(0)
    levels = SimpleFeaturePyramid(16, 8, num_outs=5)(torch.randn(1, 1, 16, 8, 8))
    region, align = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]]), RoIAlign(2, 1.0)
    for level in levels:
        in_order = level.flatten().clone().view(level.shape)
        assert torch.equal(align(level, region), align(in_order, region))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scales=(3,)), r'scales=\(3,\)'),
        (dict(num_outs=2), 'num_outs=2'),
        (dict(scales=()), r'scales=\(\)'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(16, 8, **options)
