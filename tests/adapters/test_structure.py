"""Blocks, feed-forward networks and stages of real networks, found without their names."""

import pytest
import torch
import torchvision
from torch import nn

from mmforget.adapters import find_targets, inject, make_groups, stage_of, transformer_blocks
from mmforget.adapters.structure import is_feed_forward


@pytest.mark.parametrize(
    ('sides', 'found'),
    [
        ([(8, 32), (32, 8)], True),
        ([(8, 32), (8, 32), (32, 8)], True),  # gated: two layers read the input
        ([(8, 64), (32, 8)], True),  # gated, both in one layer
        ([(8, 32), (32, 32), (32, 8)], True),
        ([(8, 8), (8, 8)], False),  # a head's branch
        ([(8, 32), (32, 4)], False),  # scores
        ([(8, 2), (2, 8)], False),  # squeeze and excite
        ([(8, 32)], False),
    ],
)
def test_a_feed_forward_network_widens_and_narrows(sides, found):
    assert is_feed_forward([nn.Linear(*pair) for pair in sides]) == found
    assert is_feed_forward([nn.Conv2d(*pair, 1) for pair in sides]) == found
    assert not is_feed_forward([nn.Conv2d(*pair, 3) for pair in sides])


def test_layers_without_a_module_of_their_own():
    """torch's own layer holds its two linear layers directly."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 2)
    assert transformer_blocks(model) == {
        f'layers.{i}': [f'layers.{i}.linear1', f'layers.{i}.linear2'] for i in range(2)
    }


def test_a_sequence_as_feed_forward_network():
    vit = torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 32)
    blocks = transformer_blocks(vit)
    assert list(blocks) == [f'encoder.layers.encoder_layer_{i}' for i in range(2)]
    assert blocks['encoder.layers.encoder_layer_1'] == [
        f'encoder.layers.encoder_layer_1.mlp.{i}' for i in (0, 3)
    ]


@pytest.mark.parametrize(
    ('name', 'layers'),
    [
        ('vit_tiny_patch16_224', ['fc1', 'fc2']),
        ('deit3_small_patch16_224', ['fc1', 'fc2']),
        ('eva02_tiny_patch14_224', ['fc1', 'fc2']),
        ('eva02_base_patch14_224', ['fc1_g', 'fc1_x', 'fc2']),
        ('vit_small_patch14_reg4_dinov2', ['fc1', 'fc2']),
    ],
)
def test_plain_transformers_of_timm(name, layers):
    timm = pytest.importorskip('timm')
    vit = timm.create_model(name, depth=2, num_classes=3)
    wanted = {f'blocks.{i}': [f'blocks.{i}.mlp.{layer}' for layer in layers] for i in range(2)}
    assert transformer_blocks(vit) == wanted
    attention = list(find_targets(vit, 'attention'))
    assert attention and all('.attn.' in path for path in attention)
    with torch.no_grad():
        size = vit.patch_embed.img_size
        before = vit.eval()(torch.ones(1, 3, *size))
        for adapter in inject(vit, 'attention', 2, 1.0).values():
            nn.init.ones_(adapter.lora_B)
            after = vit(torch.ones(1, 3, *size))
            assert not torch.equal(after, before), 'each adapter has an effect'
            before = after


def test_swin_of_timm():
    timm = pytest.importorskip('timm')
    swin = timm.create_model('swin_tiny_patch4_window7_224', depths=(1, 1, 2, 1), num_classes=3)
    blocks = [f'layers.{s}.blocks.{b}' for s, b in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))]
    assert list(transformer_blocks(swin)) == blocks
    assert len(find_targets(swin, 'ffn')) == 2 * len(blocks)


@pytest.mark.parametrize('name', ['mobilenet_v2', 'convnext_tiny', 'efficientnet_b0', 'resnet18'])
def test_convolutional_networks_have_no_blocks(name):
    """An inverted residual widens and narrows as well, but beside no attention."""
    model = nn.ModuleDict({'backbone': getattr(torchvision.models, name)()})
    assert transformer_blocks(model) == {}
    # Nor when something else in the model attends.
    model['encoder'] = nn.TransformerEncoderLayer(8, 2, 32)
    assert list(transformer_blocks(model)) == ['encoder']
    with pytest.raises(ValueError, match="'ffn' matches no layer.*targets='conv'"):
        find_targets(model['backbone'], 'ffn')


class BoxHead(nn.Module):
    """Hidden layers, and two that give scores and boxes."""

    def __init__(self):
        super().__init__()
        self.shared = nn.ModuleList([nn.Linear(32, 24), nn.Linear(24, 24)])
        self.classify = nn.Linear(24, 11)
        self.regress = nn.Linear(24, 40)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = nn.Conv2d(3, 8, 7)
        self.backbone.layer1 = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, groups=4)),
            nn.Sequential(nn.Conv2d(16, 16, 3)),
        )
        self.neck = nn.Module()
        self.neck.lateral = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)])
        self.head = BoxHead()


def test_layers_and_stages_of_a_convolutional_detector():
    model = Convolutional()
    found = list(find_targets(model, 'conv'))
    assert found == [
        'backbone.layer1.0.0',
        'backbone.layer1.1.0',
        'neck.lateral.0',
        'neck.lateral.1',
        'head.shared.0',
        'head.shared.1',
    ]
    assert [stage_of(model, name) for name in found] == [
        *['backbone.layer1'] * 2,
        *['neck.lateral'] * 2,
        *['head.shared'] * 2,
    ]
    adapters = inject(model, 'conv', 2, 1.0)
    assert list(make_groups(adapters, 'stage', model)) == [
        'backbone.layer1',
        'neck.lateral',
        'head.shared',
    ]
    with pytest.raises(ValueError, match='needs the model'):
        make_groups(adapters, 'stage')


class OnTransformer(Convolutional):
    """A backbone with transformer blocks, and heads without: of boxes, and of queries."""

    def __init__(self):
        super().__init__()
        self.backbone.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 2).layers
        self.panoptic_head = nn.TransformerDecoderLayer(8, 2, 32)


def test_heads_beside_the_blocks_of_a_backbone():
    model = OnTransformer()
    assert list(find_targets(model, 'head')) == ['head.shared.0', 'head.shared.1']
    adapters = inject(model, ['backbone.blocks.*', 'head'], 2, 1.0)
    assert list(make_groups(adapters, 'block', model)) == [
        *('backbone.blocks.0', 'backbone.blocks.1', 'head.shared')
    ]
    with pytest.raises(ValueError, match="'head' matches no layer: it has no head"):
        find_targets(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 2), 'head')


def test_blocks_are_the_same_with_adapters_in_them():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 2)
    before = transformer_blocks(model)
    adapters = inject(model, 'ffn', 2, 1.0)
    assert transformer_blocks(model) == before
    assert list(make_groups(adapters, 'block', model)) == ['layers.0', 'layers.1']


def test_a_list_of_stages_in_a_backbone_counts_by_its_entries():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.stages = nn.ModuleList(
        [nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(4, 4, 1))]
    )
    assert stage_of(model, 'backbone.stages.1.0') == 'backbone.stages.1'


def test_outputs_do_not_change_by_a_bit_on_any_preset():
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    swin = timm.create_model('swin_tiny_patch4_window7_224', depths=(1, 1, 1, 1), num_classes=3)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        want = swin.eval()(x)
        inject(swin, ['ffn', 'attention'], 4, 1.0)
        assert torch.equal(swin(x), want)
