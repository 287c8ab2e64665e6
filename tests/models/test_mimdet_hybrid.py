"""The hybrid backbone: strides, sampling of tokens, and its decoder."""

import pytest
import torch

timm = pytest.importorskip('timm')

from mmforget.models.backbones import ConvStem, MIMDetHybrid, MobileNetV2Stem  # noqa: E402
from mmforget.models.backbones.token_sampling import TokenSampling  # noqa: E402

SMALL = dict(model_name='vit_tiny_patch16_224', img_size=64, timm_args=dict(depth=2))
STEM = dict(type='mmforget.ConvStem', channels=(4, 8, 12, 16))


def build(**options):
    torch.manual_seed(0)
    return MIMDetHybrid(**{**SMALL, 'stem': STEM, **options})


@pytest.mark.parametrize('size', [(64, 64), (70, 100)])
@pytest.mark.parametrize('strides', [(4, 8, 16, 32), (16,), (8, 32)])
def test_maps(size, strides):
    backbone = build(out_strides=strides).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        for stride, channels in zip(strides, backbone.out_channels, strict=True)
    ]


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'eva02_tiny_patch14_224'])
@pytest.mark.parametrize('ratio', [0.5, (0.25, 0.5)])
def test_in_training_the_encoder_sees_a_part_of_the_tokens(name, ratio):
    backbone = build(model_name=name, sample_ratio=ratio, decoder_depth=1, decoder_channels=32)
    seen = []
    backbone.encoder.vit.blocks[0].register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[1])
    )
    image = torch.randn(2, 3, 128, 128)
    maps = backbone.train()(image)
    assert maps[2].shape == (2, 32, 8, 8) and maps[3].shape == (2, 32, 4, 4)
    (tokens,) = seen
    assert 16 <= tokens - 1 <= 32
    if ratio == 0.5:
        assert tokens - 1 == 32
    sum(m.sum() for m in maps).backward()
    assert backbone.decoder.mask_token.grad.abs().sum() > 0
    backbone.eval()(image)
    assert seen[-1] - 1 == 64, 'all of them in evaluation'


def test_missing_places_are_filled_where_they_were():
    """Tokens that were seen go back to their places; all others hold the mask token."""
    backbone = build(sample_ratio=0.5, decoder_depth=1, decoder_channels=32)
    decoder = backbone.decoder
    decoder.blocks = torch.nn.ModuleList()
    decoder.norm = torch.nn.Identity()
    tokens, kept = torch.randn(2, 3, 192), torch.tensor([[0, 2, 5], [1, 3, 4]])
    out = decoder(tokens, kept, (2, 3))
    grid = timm.layers.build_sincos2d_pos_embed([2, 3], dim=32)
    for image in range(2):
        embedded = decoder.embedding(tokens[image])
        for place in range(6):
            known = (kept[image] == place).nonzero().flatten()
            want = embedded[known[0]] if len(known) else decoder.mask_token[0, 0]
            torch.testing.assert_close(out[image, place], want + grid[place])


def test_sampling_keeps_order_prefix_and_gives_indices_once():
    sampling = TokenSampling(0.5, prefix_tokens=1, with_indices=False).train()
    tokens = torch.arange(9.0)[None, :, None].expand(2, 9, 4)
    kept = sampling(tokens)
    places = sampling.take()
    assert places.shape == (2, 4) and (places.diff(dim=1) > 0).all()
    assert torch.equal(kept[:, 1:, 0], places + 1.0) and (kept[:, 0] == 0).all()
    assert sampling.take() is None
    assert torch.equal(sampling.eval()(tokens), tokens)


def test_stem_of_mobilenet_ends_with_its_last_output():
    stem = MobileNetV2Stem(out_indices=(1, 2, 4))
    assert not hasattr(stem, 'layer6') and not hasattr(stem, 'conv2')
    backbone = build(stem=dict(type='mmforget.MobileNetV2Stem'))
    assert backbone.out_channels == (24, 32, 192, 192)


def test_the_transformer_below_windows():
    backbone = build(window_size=2, global_blocks=[]).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 96, 64))[2].shape == (1, 192, 6, 4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(out_strides=(8, 4)), r'out_strides=\(8, 4\)'),
        (dict(out_strides=()), r'out_strides=\(\)'),
        (dict(sample_ratio=0.5), 'decoder_depth=0'),
        (dict(sample_ratio=1.5), 'sample_ratio=1.5'),
        (dict(sample_ratio=(0.5, 0.25)), r'sample_ratio=\(0.5, 0.25\)'),
        (dict(sample_ratio=0.5, decoder_depth=1, window_size=2), 'window_size=2'),
        (dict(decoder_depth=1, decoder_channels=40), 'decoder_channels=40'),
        (
            dict(stem=dict(type='mmforget.MobileNetV2Stem', out_indices=(1, 2, 6))),
            r'MobileNetV2Stem.*strides 4, 8 and 16',
        ),
        (dict(model_name='swin_tiny_patch4_window7_224', timm_args={}), 'plain|any size'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_conv_stem_wants_four_widths():
    with pytest.raises(ValueError, match=r'channels=\(1, 2\)'):
        ConvStem((1, 2))
