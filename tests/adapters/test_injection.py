"""Where adapters go, and that nothing else moves."""

import re

import pytest
import torch
from torch import nn

from mmforget.adapters import LoRALinear, block_of, find_targets, inject, remove, remove_one


class FFN(nn.Module):
    """Module paths of mmcv's FFN."""

    def __init__(self, dim=6, hidden=8):
        super().__init__()
        first = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(0.0))
        self.layers = nn.Sequential(first, nn.Linear(hidden, dim), nn.Dropout(0.0))

    def forward(self, x):
        return x + self.layers(x)


class Layer(nn.Module):
    def __init__(self, old=False):
        super().__init__()
        self.self_attn = nn.Module()
        self.self_attn.attn = nn.MultiheadAttention(6, 2)
        self.self_attn.value_proj = nn.Linear(6, 6)
        if old:
            self.ffns = nn.ModuleList([FFN()])
        else:
            self.ffn = FFN()
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        x = self.norm(x + self.self_attn.value_proj(x))
        return self.ffns[0](x) if hasattr(self, 'ffns') else self.ffn(x)


class Stack(nn.Module):
    def __init__(self, depth, old=False):
        super().__init__()
        self.layers = nn.ModuleList(Layer(old) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Detector(nn.Module):
    """Module paths of a DETR-like detector."""

    def __init__(self, depth=2, old=False):
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 1)
        self.encoder = Stack(depth, old)
        self.decoder = Stack(depth, old)
        self.memory_trans_fc = nn.Linear(6, 6)
        shared = nn.Linear(6, 3)
        self.cls_branches = nn.ModuleList([shared, shared])  # as without box refinement

    def forward(self, x):
        x = self.decoder(self.encoder(self.memory_trans_fc(x)))
        return self.cls_branches[0](x) + self.cls_branches[1](x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Detector()


FFNS = [
    f'{part}.layers.{i}.ffn.layers.{end}'
    for part in ('encoder', 'decoder')
    for i in (0, 1)
    for end in ('0.0', '1')
]


def test_ffn_preset(model):
    found = find_targets(model, 'ffn')
    assert list(found) == FFNS
    modules = dict(model.named_modules())
    assert all(found[name] is modules[name] for name in FFNS)


def test_ffn_preset_of_older_mmcv_and_below_a_prefix():
    model = nn.ModuleDict({'head': nn.ModuleDict({'transformer': Detector(1, old=True)})})
    assert list(find_targets(model, 'ffn')) == [
        f'head.transformer.{part}.layers.0.ffns.0.layers.{end}'
        for part in ('encoder', 'decoder')
        for end in ('0.0', '1')
    ]


def test_ffn_preset_of_timm():
    timm = pytest.importorskip('timm')
    vit = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=3
    )
    want = [f'blocks.{i}.mlp.fc{k}' for i in (0, 1) for k in (1, 2)]
    assert list(find_targets(vit, 'ffn')) == want
    model = nn.ModuleDict({'backbone': vit})
    assert list(find_targets(model, 'ffn')) == [f'backbone.{name}' for name in want]


def test_names_regexes_and_mixtures(model):
    assert list(find_targets(model, 'memory_trans_fc')) == ['memory_trans_fc']
    assert list(find_targets(model, r'encoder\..*\.layers\.1')) == [
        'encoder.layers.0.ffn.layers.1',
        'encoder.layers.1.ffn.layers.1',
    ]
    mixed = find_targets(model, ['memory_trans_fc', FFNS[0], r'decoder\.layers\.1\.ffn.*'])
    assert list(mixed) == [FFNS[0], *FFNS[6:], 'memory_trans_fc'], 'in model order'


def test_exact_name_is_no_regex():
    model = nn.ModuleDict({'a': nn.ModuleDict({'b': nn.Linear(2, 2)}), 'a_b': nn.Linear(2, 2)})
    assert list(find_targets(model, ['a.b'])) == ['a.b']
    assert list(find_targets(model, r'a[._]b')) == ['a.b', 'a_b']


@pytest.mark.parametrize(
    ('targets', 'named'),
    [
        ('fnn', "'fnn'"),
        (['memory_trans_fc', 'nope'], "'nope' matches"),
        ([], r'\[\]'),
        ('encoder', "'encoder'"),  # no layer
        ('ffn.layers', "'ffn.layers'"),  # a part of a name is not a match
        ('(', 'no valid regex'),
        ([3], 'entry 3'),
        ('encoder.layers.0.self_attn.attn.out_proj', 'out_proj'),  # torch never calls it
    ],
)
def test_what_matches_nothing_is_an_error(model, targets, named):
    with pytest.raises(ValueError, match=named) as error:
        find_targets(model, targets)
    text = str(error.value)
    assert repr(targets) in text
    assert 'memory_trans_fc' in text and "Give one of 'ffn'" in text


def test_error_lists_twenty_names_then_a_count():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(25)])
    with pytest.raises(ValueError, match=r' 18, 19, \.\.\. and 5 more') as error:
        find_targets(model, 'ffn')
    assert ' 20,' not in str(error.value)


def test_injection_changes_no_bit_and_freezes_the_rest(model):
    x = torch.randn(4, 6)
    want = model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapters = inject(model, 'ffn', rank=2, alpha=1.0)
    assert list(adapters) == FFNS
    modules = dict(model.named_modules())
    assert all(modules[n] is a and isinstance(a, LoRALinear) for n, a in adapters.items())
    assert torch.equal(model(x), want)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f'{n}.lora_{m}' for n in FFNS for m in 'AB'}
    after = model.state_dict()
    assert set(after) - set(before) == trainable
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_training_moves_the_adapters_only(model):
    adapters = inject(model, 'ffn', rank=2, alpha=1.0)
    frozen = {k: v.clone() for k, v in model.state_dict().items() if 'lora' not in k}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(4, 6)).square().mean().backward()
        optimiser.step()
    assert all(adapter.lora_B.any() for adapter in adapters.values())
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in frozen.items())


def test_initialisation_depends_on_seed_and_name_only():
    def draw(targets, seed):
        adapters = inject(Detector(), targets, rank=2, alpha=1.0, seed=seed)
        return {name: adapter.lora_A.detach() for name, adapter in adapters.items()}

    everything, one = draw('ffn', 5), draw(FFNS[3], 5)
    assert torch.equal(everything[FFNS[3]], one[FFNS[3]])
    assert not torch.equal(everything[FFNS[1]], everything[FFNS[3]])
    assert not torch.equal(draw(FFNS[3], 6)[FFNS[3]], one[FFNS[3]])
    state = torch.get_rng_state()
    model = Detector()
    torch.set_rng_state(state)
    inject(model, 'ffn', rank=2, alpha=1.0)
    assert torch.equal(torch.get_rng_state(), state), 'the global generator must not move'


def test_layer_seed_is_fixed():
    from mmforget.adapters.injection import layer_generator

    # sha256('7:encoder.layers.0'), first 16 hex digits, halved
    assert layer_generator(7, 'encoder.layers.0').initial_seed() == 6356112937512732664


@pytest.mark.parametrize('rank', [0, -2, 7])
def test_bad_rank_names_the_layer_and_changes_nothing(model, rank):
    with pytest.raises(ValueError, match=rf"rank={rank}.*'{FFNS[0]}'.*1 to 6"):
        inject(model, 'ffn', rank=rank, alpha=1.0)
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_shared_layer_is_replaced_at_all_its_places(model):
    x = torch.randn(4, 6)
    want = model(x)
    adapters = inject(model, r'cls_branches\.\d+', rank=2, alpha=1.0)
    assert list(adapters) == ['cls_branches.0']
    assert model.cls_branches[0] is model.cls_branches[1] is adapters['cls_branches.0']
    assert torch.equal(model(x), want)
    original = remove_one(model, 'cls_branches.1', fold=False)
    assert model.cls_branches[0] is model.cls_branches[1] is original


def test_tied_weight_is_refused():
    model = nn.ModuleDict({'table': nn.Embedding(5, 4), 'out': nn.Linear(4, 5, bias=False)})
    model['out'].weight = model['table'].weight
    with pytest.raises(ValueError, match="'out'.*'table'.*Untie"):
        inject(model, 'out', rank=2, alpha=1.0)


def test_a_second_injection_skips_what_has_an_adapter(model):
    inject(model, 'ffn', rank=2, alpha=1.0)
    with pytest.raises(ValueError, match='8 layers carry an adapter'):
        inject(model, 'ffn', rank=2, alpha=1.0)


def live(model):
    adapters = inject(model, 'ffn', rank=2, alpha=1.0)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.lora_B.normal_(std=0.3)
    return adapters


def test_remove_and_discard(model):
    x = torch.randn(4, 6)
    want, state = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    originals = find_targets(model, 'ffn')
    adapters = live(model)
    assert not torch.allclose(model(x), want)
    adapters[FFNS[2]].merge()  # a merged one is unmerged
    back = remove(model, adapters, fold=False)
    modules = dict(model.named_modules())
    assert all(modules[n] is back[n] is originals[n] for n in FFNS)
    assert {type(m) for m in back.values()} == {nn.Linear}
    assert torch.equal(model(x), want)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters()), 'stays frozen'


def test_remove_and_fold(model):
    x = torch.randn(4, 6)
    keys = list(model.state_dict())
    base = {k: v.clone() for k, v in model.state_dict().items()}
    adapters = live(model)
    want = model(x)
    deltas = {n: a.delta().detach() for n, a in adapters.items()}
    adapters[FFNS[2]].merge()  # must not be added twice
    remove(model, adapters, fold=True)
    assert list(model.state_dict()) == keys
    for name in FFNS:
        moved = model.state_dict()[f'{name}.weight'] - base[f'{name}.weight']
        torch.testing.assert_close(moved, deltas[name], rtol=1e-4, atol=1e-6)
    assert (model(x) - want).abs().max() < 1e-5
    live(model)  # a second task on top


def test_removed_layer_has_the_present_weight(model):
    adapters = live(model)
    state = {k: v * 2 for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)  # swaps the Parameter objects
    model.double().eval()
    back = remove(model, adapters, fold=False)
    for name, layer in back.items():
        assert torch.equal(layer.weight, state[f'{name}.weight'].double())
        assert not layer.training


def test_prune_one_layer_while_the_others_train(model):
    adapters = inject(model, 'ffn', rank=2, alpha=1.0)
    x = torch.randn(4, 6)
    want = model(x)
    remove_one(model, FFNS[0], fold=False)
    assert torch.equal(model(x), want)
    model(x).sum().backward()
    assert dict(model.named_modules())[FFNS[0]].weight.grad is None
    assert adapters[FFNS[1]].lora_B.grad is not None
    assert adapters[FFNS[0]].lora_B.grad is None
    with pytest.raises(ValueError, match=re.escape(FFNS[0]) + '.*a Linear'):
        remove(model, adapters, fold=True)
    assert not adapters[FFNS[1]].merged, 'nothing changes on error'
    del adapters[FFNS[0]]
    remove(model, adapters, fold=True)


def test_remove_refuses_foreign_adapters(model):
    inject(model, 'ffn', rank=2, alpha=1.0)
    other = inject(Detector(), 'ffn', rank=2, alpha=1.0)
    with pytest.raises(ValueError, match='not the one'):
        remove(model, other, fold=True)
    with pytest.raises(ValueError, match="'no.where'.*no module"):
        remove_one(model, 'no.where', fold=True)


@pytest.mark.parametrize(
    ('name', 'block'),
    [
        ('encoder.layers.0.ffn.layers.0.0', 'encoder.layers.0'),
        ('encoder.layers.11.ffns.0.layers.1', 'encoder.layers.11'),
        ('backbone.stages.0.blocks.1.ffn.layers.1', 'backbone.stages.0.blocks.1'),
        ('blocks.3.mlp.fc1', 'blocks.3'),
        ('decoder.layers.2.self_attn.attn.out_proj', 'decoder.layers.2'),
        ('decoder.layers.2.cross_attn.value_proj', 'decoder.layers.2'),
        ('decoder.layers.2.attentions.1.value_proj', 'decoder.layers.2'),
        ('bbox_head.reg_branches.5.0', 'bbox_head.reg_branches.5'),
        ('bbox_head.cls_branches.5', 'bbox_head.cls_branches'),
        ('encoder.layers.4.linear1', 'encoder.layers.4'),
        ('neck.project', 'neck'),
        ('fc', ''),
    ],
)
def test_block_of(name, block):
    assert block_of(name) == block
