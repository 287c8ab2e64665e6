"""Images of several shapes in one batch: below the cut each has its own."""

import copy
from collections import Counter

import pytest
import torch
from tiny_families import tiny_family

from mmforget.methods import FORGET
from mmforget.taps import Stream, StreamOptions, TrunkCache, build_tap
from mmforget.taps.own_shapes import as_batch, cropped, features_as_batch, own_shapes

FAMILIES = ['DeformableDETR', 'two-stage', 'DETR', 'ConditionalDETR', 'DABDETR']
# A mask of 60 rows with 53 valid ones, scaled to 8 rows, calls 8 valid; 53 rows alone give 7.
SIZES = [(60, 64), (53, 56), (60, 40), (60, 64)]
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def mixed(tiny_batch):
    """``mixed(model, images)``: inputs and samples of some of four images of three sizes."""
    batch = tiny_batch(4)
    for index, (height, width) in enumerate(SIZES):
        batch['inputs'][index] = batch['inputs'][index][:, :height, :width]
        sample = batch['data_samples'][index]
        sample.set_metainfo({'img_shape': (height, width)})
        sample.gt_instances.bboxes.clip_((height, width))

    def run(model, images=range(4)):
        some = {key: [values[index] for index in images] for key, values in batch.items()}
        data = model.data_preprocessor(copy.deepcopy(some), True)
        return data['inputs'], data['data_samples']

    return run


@pytest.fixture(scope='module', params=FAMILIES)
def family(request, build_tiny):
    return build_tiny(tiny_family(request.param))


def train_only(model, name):
    model.requires_grad_(False).eval()
    model.get_submodule(name).requires_grad_(True)
    return model


def forward(model, data, cache=None):
    inputs, samples = data
    streams = {FORGET: Stream(slice(0, len(samples)), StreamOptions())}
    return build_tap(model, cache).forward(inputs, samples, streams)[FORGET]


@pytest.mark.parametrize(
    'trained',
    [
        'encoder.layers.0',
        'decoder.layers.0.self_attn',
        'decoder.layers.0.ffn',
        'decoder.layers.1.ffn',
    ],
)
@pytest.mark.parametrize('family', [f for f in FAMILIES if f != 'two-stage'], indirect=True)
def test_company_changes_nothing(family, mixed, trained):
    """What comes out for an image is what comes out when it is alone.

    Not with proposals: MMDetection's top k of them counts masked tokens, too.
    """
    train_only(family, trained)
    together = forward(family, mixed(family))
    assert together.logits.requires_grad
    for index in range(4):
        alone = forward(family, mixed(family, [index]))
        for name in ('logits', 'boxes', 'embeddings'):
            found, wanted = getattr(together, name)[index], getattr(alone, name)[0]
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'trained', ['encoder.layers.1', 'decoder.layers.0.self_attn', 'decoder.layers.0.ffn']
)
def test_with_and_without_a_cache(family, mixed, trained):
    train_only(family, trained)
    wanted = forward(family, mixed(family))
    cache = TrunkCache(10**9)
    for _ in range(2):
        found = forward(family, mixed(family), cache)
        for name, value in wanted.losses.items():
            assert found.losses[name].item() == pytest.approx(value.item(), rel=1e-5), name


@pytest.mark.parametrize('trained', ['encoder.layers.1', 'decoder.layers.1.ffn'])
def test_an_image_is_found_again_in_other_company(build_tiny, mixed, trained):
    model = train_only(build_tiny(), trained)
    cache, calls = TrunkCache(10**9), Counter()
    handle = model.backbone.register_forward_hook(lambda *_: calls.update(['backbone']))
    forward(model, mixed(model, [1]), cache)
    forward(model, mixed(model, [0, 2]), cache)
    seen = calls['backbone']
    assert seen == 3  # Three shapes.
    for images in ([0, 1], [2, 1], [2], [1, 2, 0]):
        forward(model, mixed(model, images), cache)
    assert calls['backbone'] == seen
    forward(model, mixed(model, [1, 3]), cache)
    assert calls['backbone'] == seen + 1
    handle.remove()


def test_images_without_the_padding_of_their_company(build_tiny, mixed):
    inputs, samples = mixed(build_tiny(), [1, 2])
    assert inputs.shape == (2, 3, 60, 56)
    assert own_shapes(inputs, samples) == [(53, 56), (60, 40)]
    first, second = cropped(inputs, own_shapes(inputs, samples))
    assert first.shape == (3, 53, 56) and second.shape == (3, 60, 40)
    assert not inputs[0, :, 53:].any() and torch.equal(second, inputs[1, :, :, :40])


def test_padded_to_a_divisor_as_the_preprocessor_does(build_tiny, mixed):
    model = build_tiny()
    model.data_preprocessor.pad_size_divisor = 32
    try:
        assert own_shapes(*mixed(model, [1, 2])) == [(64, 64), (64, 64)]
    finally:
        model.data_preprocessor.pad_size_divisor = 1


def test_feature_maps_are_padded_with_zeros():
    first, second = torch.ones(1, 2, 3, 5), torch.ones(1, 2, 4, 2)
    (level,) = features_as_batch([{'0': first}, {'0': second}], CPU)
    assert level.shape == (2, 2, 4, 5)
    assert level.sum() == first.sum() + second.sum()
    assert torch.equal(level[:1, :, :3], first) and torch.equal(level[1:, :, :, :2], second)


def test_tokens_stay_in_their_place_of_the_grid():
    """Two levels; the second image is lower and wider, and its last column is its own padding."""
    first = {
        'memory': torch.arange(1.0, 8)[None, :, None],
        'spatial_shapes': torch.tensor([[[3, 2], [1, 1]]]),
        'level_start_index': torch.tensor([[0, 6]]),
        'valid_ratios': torch.ones(1, 2, 2),
    }
    second = {
        'memory': torch.arange(10.0, 18)[None, :, None],
        'memory_mask': torch.tensor([[False, False, True] * 2 + [False, True]]),
        'spatial_shapes': torch.tensor([[[2, 3], [1, 2]]]),
        'level_start_index': torch.tensor([[0, 6]]),
        'valid_ratios': torch.tensor([[[2 / 3, 1], [1 / 2, 1]]]),
    }
    batch = as_batch([first, second], CPU)
    assert batch['memory'][..., 0].tolist() == [
        [1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 0],
        [10, 11, 12, 13, 14, 15, 0, 0, 0, 16, 17],
    ]
    assert batch['memory_mask'].int().tolist() == [
        [0, 0, 1] * 3 + [0, 1],
        [0, 0, 1] * 2 + [1, 1, 1] + [0, 1],
    ]
    for image in range(2):
        assert batch['spatial_shapes'][image].tolist() == [[3, 3], [1, 2]]
        assert batch['level_start_index'][image].tolist() == [0, 9]
    torch.testing.assert_close(
        batch['valid_ratios'],
        torch.tensor([[[2 / 3, 1], [1 / 2, 1]], [[2 / 3, 2 / 3], [1 / 2, 1]]]),
    )


def test_a_batch_of_images_of_which_some_have_a_mask():
    first = {'memory': torch.ones(1, 2, 3)}
    second = {'memory': torch.zeros(1, 2, 3), 'memory_mask': torch.tensor([[True, False]])}
    batch = as_batch([first, second], CPU)
    assert batch['memory'].shape == (2, 2, 3) and batch['memory'][0].all()
    assert batch['memory_mask'].tolist() == [[False, False], [True, False]]
    assert as_batch([first], CPU).keys() == {'memory'}
