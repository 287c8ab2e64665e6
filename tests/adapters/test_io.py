"""Adapter folders: to and fro, into peft, out of peft, sums."""

import copy
import json
import os

import pytest
import torch
from torch import nn

from mmforget.adapters import (
    AdapterState,
    adapter_state,
    apply_adapters,
    concatenate,
    inject,
    load_adapters,
    load_extra,
    save_adapters,
)


class Tail(nn.Module):
    """Some layer names are suffixes of others, and `mlp.fc1` as a regex matches `mlpxfc1`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1 = nn.Linear(6, 6)
        self.mlp = nn.ModuleDict({'fc1': nn.Linear(6, 6), 'fc2': nn.Linear(6, 6)})
        self.mlpxfc1 = nn.Linear(6, 6)
        self.blocks = nn.ModuleList([nn.ModuleDict({'mlp': copy.deepcopy(self.mlp)})])

    def forward(self, x):
        for layer in (
            self.fc1,
            self.mlp['fc1'],
            self.mlp['fc2'],
            self.mlpxfc1,
            self.blocks[0]['mlp']['fc1'],
            self.blocks[0]['mlp']['fc2'],
        ):
            x = torch.tanh(layer(x))
        return x


def random_state(ranks, scalings=None, seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: AdapterState(
            torch.randn(rank, size, generator=generator),
            torch.randn(size, rank, generator=generator),
            (scalings or {}).get(name, 0.5),
        )
        for name, rank in ranks.items()
    }


def shifted(state):
    """A plain model whose weights are moved by hand."""
    model = Tail()
    modules = dict(model.named_modules())
    for name, entry in state.items():
        with torch.no_grad():
            modules[name].weight += entry.scaling * (entry.B @ entry.A)
    return model


def same(left, right):
    assert list(sorted(left)) == list(sorted(right))
    for name, entry in left.items():
        assert torch.equal(entry.A, right[name].A) and torch.equal(entry.B, right[name].B)
        assert entry.scaling == pytest.approx(right[name].scaling, rel=1e-12)


CASES = {
    'one': ({'mlp.fc1': 2}, {}),
    'root name that ends others': ({'fc1': 2}, {}),
    'all': (
        {n: 3 for n in ('fc1', 'mlp.fc1', 'mlp.fc2', 'mlpxfc1', 'blocks.0.mlp.fc1')},
        {},
    ),
    'suffixes, two ranks': ({'fc1': 2, 'mlp.fc1': 3, 'blocks.0.mlp.fc1': 4}, {}),
    'suffixes, most common rank elsewhere': (
        {'fc1': 2, 'mlp.fc1': 1, 'mlp.fc2': 1, 'mlpxfc1': 1, 'blocks.0.mlp.fc1': 5},
        {'fc1': 1.0, 'mlp.fc1': 0.125, 'blocks.0.mlp.fc1': 0.3},
    ),
}


@pytest.fixture(params=CASES)
def state(request):
    ranks, scalings = CASES[request.param]
    return random_state(ranks, scalings)


def test_round_trip(tmp_path, state):
    save_adapters(tmp_path / 'new' / 'a', state, 'base.pth', {'task': 1})
    same(load_adapters(tmp_path / 'new' / 'a'), state)
    assert load_extra(tmp_path / 'new' / 'a') == {'task': 1}
    config = json.loads((tmp_path / 'new' / 'a' / 'adapter_config.json').read_text())
    assert config['base_model_name_or_path'] == 'base.pth'
    assert os.listdir(tmp_path / 'new') == ['a'], 'no temporary folder stays'


def test_peft_loads_the_folder(tmp_path, state):
    peft = pytest.importorskip('peft')
    save_adapters(tmp_path / 'a', state, 'base.pth')
    base = Tail()
    x = torch.randn(5, 6)
    plain = base(x)
    want = shifted(state)(x)
    model = peft.PeftModel.from_pretrained(base, tmp_path / 'a').eval()
    adapted = {
        n.removeprefix('base_model.model.')
        for n, m in model.named_modules()
        if isinstance(m, peft.tuners.lora.LoraLayer)
    }
    assert adapted == set(state)
    assert not torch.allclose(want, plain, atol=1e-2)
    torch.testing.assert_close(model(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('rslora', [False, True])
def test_folder_written_by_peft(tmp_path, rslora):
    peft = pytest.importorskip('peft')
    config = peft.LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=['fc1', 'mlp.fc2'],  # peft reads these as suffixes
        rank_pattern={'mlp.fc1': 4, '^fc1': 1},
        alpha_pattern={'mlp.fc2': 5},
        use_rslora=rslora,
        init_lora_weights=False,
    )
    model = peft.get_peft_model(Tail(), config).eval()
    model.save_pretrained(tmp_path)
    loaded = load_adapters(tmp_path)
    assert {n: s.rank for n, s in loaded.items()} == {
        'fc1': 1,
        'mlp.fc1': 4,
        'mlp.fc2': 2,
        'blocks.0.mlp.fc1': 4,
        'blocks.0.mlp.fc2': 2,
    }
    x = torch.randn(5, 6)
    torch.testing.assert_close(shifted(loaded)(x), model(x), rtol=1e-5, atol=1e-5)


def test_empty_state(tmp_path):
    save_adapters(tmp_path / 'a', {}, 'base.pth', {'pruned': ['blocks.0']})
    assert load_adapters(tmp_path / 'a') == {}
    assert load_extra(tmp_path / 'a') == {'pruned': ['blocks.0']}
    model, x = Tail(), torch.randn(2, 6)
    want = model(x)
    apply_adapters(model, {})
    assert torch.equal(model(x), want)


def test_state_is_a_copy_and_apply_equals_merge(tmp_path):
    model = Tail()
    adapters = inject(model, [r'.*fc1', 'mlp.fc2'], rank=2, alpha=1.0)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.lora_B.normal_()
    x = torch.randn(5, 6)
    want = model(x)
    state = adapter_state(adapters)
    save_adapters(tmp_path / 'a', state, 'base.pth')
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.lora_B.mul_(2)
    plain = Tail()
    apply_adapters(plain, load_adapters(tmp_path / 'a'))
    torch.testing.assert_close(plain(x), want, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.lora_B.div_(2)
            adapter.merge()
    modules = dict(plain.named_modules())
    for name, adapter in adapters.items():
        assert torch.equal(adapter.weight, modules[name].weight), 'the same bits'


def test_cumulative_adapter_is_the_sum(tmp_path):
    first = random_state({'fc1': 2, 'mlp.fc1': 1}, {'fc1': 0.25}, seed=1)
    second = random_state({'fc1': 1, 'mlp.fc2': 3}, {'fc1': 2.0}, seed=2)
    third = random_state({'fc1': 1, 'mlp.fc2': 2}, seed=3)
    total = concatenate([first, second, third])
    assert {n: s.rank for n, s in total.items()} == {'fc1': 4, 'mlp.fc1': 1, 'mlp.fc2': 5}
    for name, entry in total.items():
        want = sum(
            s[name].scaling * (s[name].B @ s[name].A) for s in (first, second, third) if name in s
        )
        torch.testing.assert_close(entry.delta(), want)
    save_adapters(tmp_path / 'a', total, 'base.pth')
    one_by_one, at_once = Tail(), Tail()
    for state in (first, second, third):
        apply_adapters(one_by_one, state)
    apply_adapters(at_once, load_adapters(tmp_path / 'a'))
    x = torch.randn(5, 6)
    torch.testing.assert_close(at_once(x), one_by_one(x), rtol=1e-5, atol=1e-5)
    assert concatenate([]) == {} and concatenate([{}, {}]) == {}
    with pytest.raises(ValueError, match="'fc1'.*different shapes"):
        concatenate([first, random_state({'fc1': 1}, size=7)])


def test_replacing(tmp_path):
    folder = tmp_path / 'a'
    save_adapters(folder, random_state({'fc1': 2}), 'one', {'x': 1})
    newer = random_state({'mlp.fc1': 1}, seed=4)
    save_adapters(folder, newer, 'two')
    same(load_adapters(folder), newer)
    assert load_extra(folder) == {}, 'nothing of the older folder stays'
    assert os.listdir(tmp_path) == ['a']
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='notes.txt'):
        save_adapters(folder, newer, 'three')
    assert (folder / 'notes.txt').exists() and os.listdir(tmp_path) == ['a']
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileExistsError, match='no plain folder'):
        save_adapters(tmp_path / 'file', newer, 'four')


@pytest.mark.parametrize('at', [1, 2])
def test_a_failed_or_killed_replacement_keeps_the_older_adapters(tmp_path, monkeypatch, at):
    folder = tmp_path / 'a'
    older = random_state({'fc1': 2})
    save_adapters(folder, older, 'one')
    rename, calls = os.rename, []

    def fail(source, target):
        calls.append(target)
        if len(calls) == at:
            raise OSError('disk')
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fail)
    with pytest.raises(OSError, match='disk'):
        save_adapters(folder, random_state({'mlp.fc1': 1}), 'two')
    monkeypatch.undo()
    same(load_adapters(folder), older)
    assert os.listdir(tmp_path) == ['a']
    # a kill between the two renames leaves this
    os.rename(folder, tmp_path / 'a.previous')
    with pytest.warns(UserWarning, match='cut off'):
        same(load_adapters(folder), older)
    newer = random_state({'mlp.fc1': 1})
    save_adapters(folder, newer, 'two')
    same(load_adapters(folder), newer)
    assert os.listdir(tmp_path) == ['a']


def test_save_refuses(tmp_path):
    good = random_state({'fc1': 2})
    with pytest.raises(ValueError, match='JSON'):
        save_adapters(tmp_path / 'a', good, 'b', {'x': object()})
    with pytest.raises(ValueError, match='JSON'):
        save_adapters(tmp_path / 'a', good, 'b', {'x': float('nan')})
    bad = {'fc1': AdapterState(torch.zeros(2, 6), torch.zeros(6, 3), 1.0)}
    with pytest.raises(ValueError, match=r"'fc1'.*\(2, 6\).*\(6, 3\)"):
        save_adapters(tmp_path / 'a', bad, 'b')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'peft_type': 'LOHA'}, "peft_type='LOHA'"),
        ({'bias': 'all'}, "bias='all'"),
        ({'use_dora': True}, 'use_dora'),
        ({'lora_bias': True}, 'lora_bias'),
        ({'fan_in_fan_out': True}, 'fan_in_fan_out'),
        ({'modules_to_save': ['head']}, 'modules_to_save'),
        ({'r': 3}, 'rank 2.*say 3'),
        ({'r': 'eight'}, "r='eight'"),
    ],
)
def test_load_refuses_by_field(tmp_path, change, message):
    save_adapters(tmp_path / 'a', random_state({'fc1': 2}), 'b')
    path = tmp_path / 'a' / 'adapter_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        load_adapters(tmp_path / 'a')


def test_load_refuses_broken_folders(tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(FileNotFoundError, match='adapter_config.json'):
        load_adapters(tmp_path / 'none')
    folder = tmp_path / 'a'
    save_adapters(folder, random_state({'fc1': 2}), 'b')
    weights = folder / 'adapter_model.safetensors'
    tensors = load_file(weights)
    key = 'base_model.model.fc1.lora_B.weight'
    for change, message in [
        ({key: torch.zeros(6, 3)}, r"'fc1': A is \(2, 6\) and B is \(6, 3\)"),
        ({key: torch.zeros(6, 2, 1, 1)}, "'fc1'"),
        ({key: torch.zeros(6, 2, dtype=torch.int32)}, 'int32'),
        ({'base_model.model.fc1.lora_magnitude_vector': torch.zeros(6)}, 'magnitude'),
    ]:
        save_file({**tensors, **change}, weights)
        with pytest.raises(ValueError, match=message):
            load_adapters(folder)
    save_file({k: v for k, v in tensors.items() if k != key}, weights)
    with pytest.raises(ValueError, match="'fc1' has no lora_B"):
        load_adapters(folder)
    weights.write_bytes(b'junk')
    with pytest.raises(ValueError, match='no valid safetensors'):
        load_adapters(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match='adapter_model.safetensors.*bin'):
        load_adapters(folder)
    (folder / 'adapter_config.json').write_text('{')
    weights.write_bytes(b'')
    with pytest.raises(ValueError, match='no valid JSON'):
        load_adapters(folder)


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        (random_state({'fc9': 1}), "no module 'fc9'.*mlp.fc1"),
        (random_state({'fc1': 1}, size=5), r"'fc1' is \(6, 6\).*\(5, 5\)"),
        (random_state({'mlp': 1}), 'ModuleDict'),
    ],
)
def test_apply_checks_before_it_changes(state, message):
    model = Tail()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        apply_adapters(model, {**random_state({'mlp.fc2': 2}), **state})
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    inject(model, 'mlp.fc2', rank=1, alpha=1.0)
    with pytest.raises(ValueError, match="'mlp.fc2' carries an adapter"):
        apply_adapters(model, random_state({'mlp.fc2': 2}))


def test_low_precision_base():
    model = Tail().to(torch.bfloat16)
    base = model.fc1.weight.detach().clone()
    state = random_state({'fc1': 2})
    apply_adapters(model, state)
    want = (base.float() + state['fc1'].delta()).bfloat16()
    torch.testing.assert_close(model.fc1.weight.detach(), want)
