"""timm's transformers as backbones: shapes, windows, and weights from files."""

import copy
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

timm = pytest.importorskip('timm')

from mmforget.models.backbones import TimmViT  # noqa: E402
from mmforget.models.backbones.windowed_attention import (  # noqa: E402
    attend_in_windows,
    default_global_blocks,
    grid_of,
)

SMALL = dict(timm_args=dict(depth=4))


def build(name='vit_tiny_patch16_224', **options):
    torch.manual_seed(0)
    return TimmViT(name, **{**SMALL, **options}).eval()


@pytest.mark.parametrize(
    ('name', 'patch'),
    [
        ('vit_tiny_patch16_224', 16),
        ('deit3_small_patch16_224', 16),
        ('eva02_tiny_patch14_224', 14),
        ('vit_small_patch14_reg4_dinov2', 14),
    ],
)
@pytest.mark.parametrize('window', [0, 3])
def test_plain_transformers_take_images_of_any_size(name, patch, window):
    vit = build(name, out_indices=(1, -1), window_size=window)
    assert vit.strides == (patch, patch)
    with torch.no_grad():
        for height, width in ((64, 96), (70, 50)):
            maps = vit(torch.randn(2, 3, height, width))
            assert [tuple(m.shape) for m in maps] == [
                (2, channels, -(-height // patch), -(-width // patch))
                for channels in vit.out_channels
            ]
            assert all(m.is_contiguous() for m in maps)


def test_hierarchical_transformer_takes_images_of_any_size():
    swin = build('swin_tiny_patch4_window7_224', timm_args=dict(depths=(1, 1, 2, 1)))
    assert swin.strides == (4, 8, 16, 32)
    assert swin.out_channels == (96, 192, 384, 768)
    with torch.no_grad():
        maps = swin(torch.randn(1, 3, 96, 160))
    assert [tuple(m.shape[-2:]) for m in maps] == [(24, 40), (12, 20), (6, 10), (3, 5)]
    assert all(m.is_contiguous() for m in maps)


def test_at_its_own_size_it_gives_what_timm_gives():
    torch.manual_seed(0)
    theirs = timm.create_model('vit_tiny_patch16_224', depth=4, num_classes=0).eval()
    ours = build()
    ours.vit.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        want = theirs.forward_intermediates(x, indices=[3], intermediates_only=True)[0]
        torch.testing.assert_close(ours(x)[0], want)
        # One window over everything is no window.
        whole = build(window_size=14)
        whole.vit.load_state_dict(ours.vit.state_dict())
        torch.testing.assert_close(whole(x)[0], want)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'eva02_tiny_patch14_224'])
def test_a_window_sees_itself_alone(name):
    """Without global blocks and class token, pixels of one window move no other one."""
    options = {'class_token': False, 'global_pool': 'avg'}
    vit = build(name, window_size=2, global_blocks=[], timm_args=dict(depth=2, **options))
    patch = vit.strides[0]
    image = torch.randn(1, 3, 5 * patch, 4 * patch)
    other = image.clone()
    other[..., : 2 * patch, : 2 * patch] += 1
    with torch.no_grad():
        moved = (vit(image)[0] != vit(other)[0]).any(dim=1)[0]
    assert moved[:2, :2].all() and not moved[2:].any() and not moved[:, 2:].any()


def test_what_fills_a_window_up_is_not_attended_to():
    """A window at the border gives what attention among its real tokens gives."""
    block = timm.models.vision_transformer.Block(8, 2).eval()
    tokens = torch.randn(1, 6, 8)  # 3 rows of 2, in windows of 2
    with torch.no_grad():
        want = torch.cat([block(tokens[:, :4]), block(tokens[:, 4:])], dim=1)
        attend_in_windows([block], 2, [], 0)
        torch.testing.assert_close(block(tokens, attn_mask=grid_of(3, 2, tokens)), want)


def test_class_token_is_the_mean_over_windows():
    block = timm.models.vision_transformer.Block(8, 2).eval()
    tokens = torch.randn(1, 1 + 8, 8)  # 2 rows of 4
    windows = [[1, 2, 5, 6], [3, 4, 7, 8]]
    with torch.no_grad():
        attended = [block.attn(block.norm1(tokens)[:, [0, *window]]) for window in windows]
        attend_in_windows([block], 2, [], 1)
        ours = block.attn(block.norm1(tokens), attn_mask=grid_of(2, 4, tokens))
    torch.testing.assert_close(ours[:, 0], (attended[0][:, 0] + attended[1][:, 0]) / 2)
    for window, want in zip(windows, attended, strict=True):
        torch.testing.assert_close(ours[:, window], want[:, 1:])


def test_windows_survive_copies_and_recomputation():
    """Two grids with as many tokens, recomputed in the backward pass after both were seen."""
    vit = build(window_size=3, global_blocks=[1])
    wide, high = torch.randn(1, 3, 64, 96), torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(vit)(wide), vit(wide))
        torch.testing.assert_close(pickle.loads(pickle.dumps(vit))(wide), vit(wide))
    copied = copy.deepcopy(vit)
    assert copied.vit.blocks[0].attn.forward.args[1] is copied.vit.blocks[0].attn

    def gradients(model):
        model.zero_grad()
        (model(wide)[0].square().sum() + model(high)[0].sum()).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    want = gradients(vit)
    for block in vit.vit.blocks:
        plain = block.forward
        block.forward = lambda *args, plain=plain, **kwargs: torch.utils.checkpoint.checkpoint(
            plain, *args, use_reentrant=False, **kwargs
        )
    for mine, other in zip(gradients(vit), want, strict=True):
        torch.testing.assert_close(mine, other)


def test_default_global_blocks_are_vitdets():
    assert default_global_blocks(12) == (2, 5, 8, 11)
    assert default_global_blocks(24) == (5, 11, 17, 23)
    assert default_global_blocks(2) == (0, 1)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'swin_tiny_patch4_window7_224'])
def test_every_weight_has_a_gradient(name):
    """Nothing is built that no loss reaches: distributed training would stop there."""
    args = dict(depth=3) if name.startswith('vit') else dict(depths=(1, 1, 1, 1))
    out = (1,) if name.startswith('vit') else (0, 2)
    vit = TimmViT(name, out_indices=out, timm_args=args)
    sum(m.square().sum() for m in vit(torch.randn(1, 3, 64, 64))).backward()
    without = [n for n, p in vit.named_parameters() if p.grad is None]
    assert not without


def test_weights_from_a_file_are_resampled_by_timm(tmp_path):
    theirs = timm.create_model('vit_tiny_patch16_224', depth=4)
    torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    vit = build(pretrained=str(tmp_path / 'vit.pth'), img_size=160)
    vit.init_weights()
    assert torch.equal(vit.vit.blocks[2].mlp.fc1.weight, theirs.blocks[2].mlp.fc1.weight)
    want = timm.layers.resample_abs_pos_embed(theirs.pos_embed, (10, 10), (14, 14))
    torch.testing.assert_close(vit.vit.pos_embed, want)


def test_own_patches_keep_their_embedding(tmp_path):
    theirs = timm.create_model('vit_tiny_patch16_224', depth=4)
    torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    args = dict(depth=4, patch_size=1, in_chans=8)
    vit = build(pretrained=str(tmp_path / 'vit.pth'), img_size=10, timm_args=args)
    before = vit.vit.patch_embed.proj.weight.clone()
    vit.init_weights()
    assert torch.equal(vit.vit.patch_embed.proj.weight, before)
    assert torch.equal(vit.vit.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)
    assert vit.vit.pos_embed.shape == (1, 101, 192)


def test_a_whole_checkpoint_makes_pretrained_weights_needless(tmp_path):
    """The loop clears ``init_cfg`` of type Pretrained, as for every backbone of MMDetection."""
    vit = build(pretrained=str(tmp_path / 'no file.pth'))
    assert vit.init_cfg['type'] == 'Pretrained'
    vit.init_cfg = None
    vit.init_weights()


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(name='vit_tinny_patch16_224'), ValueError, 'vit_tiny_patch16_224'),
        (dict(name='resnet18', timm_args={}), ValueError, 'images of any size'),
        (dict(out_indices=(4,)), ValueError, r'out_indices=\(4,\).*-4 to 3'),
        (dict(global_blocks=[0]), ValueError, 'without window_size'),
        (dict(window_size=-1), ValueError, 'window_size=-1'),
        (dict(window_size=2, global_blocks=[7]), ValueError, r'global_blocks=\[7\]'),
        (
            dict(name='swin_tiny_patch4_window7_224', window_size=2, timm_args={}),
            ValueError,
            'window_size=2 for swin',
        ),
        (dict(pretrained=True, init_cfg=dict(type='X')), ValueError, 'one of the two'),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        build(**options)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='no file'):
        build(pretrained=str(tmp_path / 'missing.pth')).init_weights()
    (tmp_path / 'broken.pth').write_bytes(b'nothing')
    with pytest.raises(RuntimeError, match='broken.pth'):
        build(pretrained=str(tmp_path / 'broken.pth')).init_weights()
    torch.save(timm.create_model('vit_tiny_patch16_224', depth=2).state_dict(), tmp_path / 'v.pth')
    with pytest.raises(ValueError, match='blocks.2'):
        build(pretrained=str(tmp_path / 'v.pth')).init_weights()
    vit = build(pretrained=True)

    def unreachable(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(timm, 'create_model', unreachable)
    with pytest.raises(RuntimeError, match='from its hub.*no route to host'):
        vit.init_weights()


def test_it_is_built_by_its_name_in_a_config():
    register_all_modules(init_default_scope=True)
    vit = MODELS.build(dict(type='mmforget.TimmViT', model_name='vit_tiny_patch16_224', **SMALL))
    assert type(vit) is TimmViT
