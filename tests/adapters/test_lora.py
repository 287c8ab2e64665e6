"""The low-rank layer against plain autograd, loralib and peft."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from mmforget.adapters import LoRALinear, disable_adapters
from mmforget.adapters.lora import _SumLinear, _TwoProductLinear

# A layer of 6 x 5 forms the sum from 3 rows on where x needs a gradient, from 6 where not.
FEW, MANY = 2, 12


def make(inp=6, out=5, rank=2, alpha=3.0, bias=True, dtype=torch.float32, live=True, seed=0):
    torch.manual_seed(seed)
    layer = LoRALinear.from_linear(nn.Linear(inp, out, bias=bias, dtype=dtype), rank, alpha)
    if live:
        with torch.no_grad():
            layer.lora_B.normal_()
    return layer


def reference(layer, x):
    """What the layer stands for, left to autograd."""
    s = layer.alpha / layer.rank
    return F.linear(x, layer.weight + s * layer.lora_B @ layer.lora_A, layer.bias)


def test_shares_parameters_and_adds_two_keys():
    linear = nn.Linear(6, 5)
    layer = LoRALinear.from_linear(linear, 2, 1.0)
    assert layer.weight is linear.weight and layer.bias is linear.bias
    assert layer.original is linear
    assert set(layer.state_dict()) == {'weight', 'bias', 'lora_A', 'lora_B'}
    assert layer.lora_A.shape == (2, 6) and layer.lora_B.shape == (5, 2)
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {'lora_A', 'lora_B'}
    assert isinstance(layer, nn.Linear) and list(layer.children()) == []


def test_initialisation():
    linear = nn.Linear(400, 300)
    layer = LoRALinear.from_linear(linear, 8, 1.0, torch.Generator().manual_seed(3))
    bound = 1 / math.sqrt(400)  # Kaiming-uniform with a = sqrt(5)
    assert layer.scaling == 1 / 8
    assert not layer.lora_B.any()
    assert layer.lora_A.abs().max() <= bound
    assert layer.lora_A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    again = LoRALinear.from_linear(nn.Linear(400, 300), 8, 1.0, torch.Generator().manual_seed(3))
    assert torch.equal(layer.lora_A, again.lora_A)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [(7, 16), (3, 7, 16), (16,)])
def test_fresh_layer_gives_the_same_bits(shape, bias):
    torch.manual_seed(1)
    linear = nn.Linear(16, 9, bias=bias)
    x = torch.randn(shape)
    want = linear(x)
    layer = LoRALinear.from_linear(linear, 4, 1.0)
    assert torch.equal(layer(x), want)
    assert torch.equal(layer(x.clone().requires_grad_()), want)
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), want)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [(7, 6), (2, 7, 6), (2, 0, 6)])
def test_gradients_equal_autograd(shape, bias):
    layer = make(bias=bias, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(*shape[:-1], 5, dtype=torch.float64)
    inputs = (x, layer.lora_A, layer.lora_B)
    got = torch.autograd.grad((layer(x) * probe).sum(), inputs)
    want = torch.autograd.grad((reference(layer, x) * probe).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    assert layer.weight.grad is None


@pytest.mark.parametrize('shape', [(FEW, 6), (2, 1, 6), (6,), (2, 3, 6), (MANY, 6)])
def test_gradcheck(shape):
    layer = make(dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def run(x, a, b):
        layer.refresh()  # gradcheck writes through .data
        return torch.func.functional_call(layer, {'lora_A': a, 'lora_B': b}, (x,))

    a, b = (p.detach().clone().requires_grad_() for p in (layer.lora_A, layer.lora_B))
    assert torch.autograd.gradcheck(run, (x, a, b))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('needed', ['x', 'A', 'B', 'xA', 'xB', 'AB', 'xAB'])
def test_both_forms_are_the_same_function(needed, bias):
    layer = make(bias=bias, dtype=torch.float64)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad='x' in needed)
    layer.lora_A.requires_grad_('A' in needed)
    layer.lora_B.requires_grad_('B' in needed)
    inputs = [t for t in (x, layer.lora_A, layer.lora_B) if t.requires_grad]
    rest = (layer.bias, layer.lora_A, layer.lora_B, layer.scaling, layer)
    thin = layer.scaling * F.linear(F.linear(x, layer.lora_A), layer.lora_B)
    plain = F.linear(x, layer.weight, layer.bias) + thin
    probe = torch.randn_like(plain)
    want = torch.autograd.grad((plain * probe).sum(), inputs)
    for out in (
        _SumLinear.apply(x, layer._sum(torch.float64), *rest),
        _TwoProductLinear.apply(x, layer.weight, *rest),
    ):
        torch.testing.assert_close(out, plain)
        got = torch.autograd.grad((out * probe).sum(), inputs)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_the_smaller_count_of_operations_decides():
    layer = make()
    x = torch.randn(MANY, 6, requires_grad=True)
    assert layer(x[:3]).grad_fn.name() == '_SumLinearBackward'
    assert layer(x[:2]).grad_fn.name() == '_TwoProductLinearBackward'
    assert layer(x.detach()[:5]).grad_fn.name() == '_TwoProductLinearBackward'
    assert layer(x.detach()[:6]).grad_fn.name() == '_SumLinearBackward'
    layer.refresh()
    layer(x[:2])
    assert layer._cache is None, 'nothing is formed for a small batch'
    with torch.no_grad():
        layer(x[:1])
        ready = layer._sum(torch.float32)
        layer(x[:2])
        assert layer._sum(torch.float32) is ready, 'without gradients one sum serves every call'


def test_non_contiguous_input_and_gradient():
    layer = make(dtype=torch.float64)
    base = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    x = base.permute(2, 1, 0)
    assert not x.is_contiguous()
    inputs = (base, layer.lora_A, layer.lora_B)
    # sum() sends back an expanded gradient, transpose() a strided one
    got = torch.autograd.grad(layer(x).transpose(0, 1).sum(), inputs)
    want = torch.autograd.grad(reference(layer, x).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_layer_used_twice_in_one_forward():
    layer = make(inp=6, out=6, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    got = torch.autograd.grad(layer(layer(x).relu()).square().sum(), inputs)
    want = torch.autograd.grad(reference(layer, reference(layer, x).relu()).square().sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_saves_no_tokens_by_out_and_no_fresh_weight():
    tokens, inp, out, rank = 11, 6, 5, 2
    layer = make(inp, out, rank)
    saved = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append((tuple(t.shape), t.data_ptr())) or t, lambda t: t
    )
    x = torch.randn(tokens, inp, requires_grad=True)
    with hooks:
        first = layer(x)
        second = layer(x)
    shapes = {shape for shape, _ in saved}
    assert shapes == {(tokens, inp), (out, inp), (rank, inp), (out, rank)}
    assert len({pointer for shape, pointer in saved if shape == (out, inp)}) == 1
    (first + second).sum().backward()
    saved.clear()
    with hooks:
        layer(x.detach())
    assert (out, inp) not in {shape for shape, _ in saved}, 'no gradient to x, so no weight'


@pytest.mark.parametrize('tokens', [7, 70])
def test_backward_never_forms_the_full_gradient(tokens):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Shapes(TorchDispatchMode):
        seen = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.seen.add(tuple(result.shape))
            return result

    layer = make(inp=13, out=17, rank=3)
    y = layer(torch.randn(tokens, 13)).sum()
    with Shapes() as spy:
        y.backward()
    assert (3, 13) in spy.seen and (17, 3) in spy.seen
    assert (17, 13) not in spy.seen and (13, 17) not in spy.seen


def test_frozen_adapter_still_passes_the_gradient_on():
    layer = make(dtype=torch.float64)
    layer.lora_A.requires_grad_(False)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, (layer.weight + layer.delta()).sum(0).expand(3, 6).detach())
    assert layer.lora_A.grad is None and layer.lora_B.grad is not None


@pytest.mark.parametrize('name', ['lora_A', 'lora_B', 'weight'])
def test_sum_follows_every_change(name):
    layer = make()
    x = torch.randn(MANY, 6)
    before = layer(x)
    assert layer._sum(torch.float32) is layer._sum(torch.float32), 'formed once'
    with torch.no_grad():
        getattr(layer, name).mul_(2)
    assert not torch.allclose(layer(x), before)
    torch.testing.assert_close(layer(x), reference(layer, x))
    getattr(layer, name).data = getattr(layer, name).data * 0.5
    torch.testing.assert_close(layer(x), before)
    setattr(layer, name, nn.Parameter(getattr(layer, name).detach() * 3, name != 'weight'))
    torch.testing.assert_close(layer(x), reference(layer, x))
    state = {k: v * 0.5 for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    torch.testing.assert_close(layer(x), reference(layer, x))


@pytest.mark.parametrize('kind', ['SGD', 'AdamW', 'fused', 'foreach'])
def test_sum_follows_optimisers(kind):
    layer = make()
    parameters = [layer.lora_A, layer.lora_B]
    if kind in ('fused', 'foreach'):
        optimiser = torch.optim.AdamW(parameters, lr=0.1, **{kind: True})
    else:
        optimiser = getattr(torch.optim, kind)(parameters, lr=0.01)
    x = torch.randn(MANY, 6)
    for _ in range(2):
        before = layer(x)
        before.square().sum().backward()
        optimiser.step()
        assert not torch.allclose(layer(x), before)
        torch.testing.assert_close(layer(x), reference(layer, x))
        layer(x).square().sum().backward()
        with torch.no_grad():
            before = layer(x)  # formed between backward and step
        optimiser.step()
        assert not torch.allclose(layer(x), before)
        torch.testing.assert_close(layer(x), reference(layer, x))


def test_writes_through_data_are_seen_after_a_mode_switch_or_refresh():
    layer = make().train()
    x = torch.randn(MANY, 6)
    layer(x)
    layer.lora_B.data.zero_()  # as weight averaging hooks do; no version counter moves
    torch.testing.assert_close(layer.eval()(x), F.linear(x, layer.weight, layer.bias))
    layer.lora_B.data.fill_(1)
    layer.refresh()
    torch.testing.assert_close(layer(x), reference(layer, x))


def test_inference_mode_leaves_the_layer_trainable():
    layer = make()
    x = torch.randn(3, 6)
    with torch.inference_mode():
        got = layer(x)
    torch.testing.assert_close(got.clone(), reference(layer, x))
    layer(x.requires_grad_()).sum().backward()
    assert layer.lora_A.grad is not None
    with torch.inference_mode():
        born = LoRALinear.from_linear(nn.Linear(6, 5), 2, 1.0)
        born.lora_B.fill_(1)
        first = born(x)
        born.lora_B.fill_(2)
        assert not torch.equal(born(x), first)


@pytest.mark.parametrize('tokens', [9, 90])
@pytest.mark.parametrize('lowered', [torch.bfloat16, torch.float16])
def test_autocast(lowered, tokens):
    layer = make(inp=32, out=24, rank=4, alpha=1.0)
    x = torch.randn(tokens, 32, requires_grad=True)
    probe = torch.randn(tokens, 24)
    inputs = (x, layer.lora_A, layer.lora_B)
    with torch.autocast('cpu', lowered):
        y = layer(x)
        full = reference(layer, x)
        assert y.dtype is lowered
    assert y.grad_fn.name().startswith('_Two' if tokens == 9 else '_Sum')
    torch.testing.assert_close(y, full, rtol=2e-2, atol=2e-2)
    got = torch.autograd.grad((y.float() * probe).sum(), inputs)
    want = torch.autograd.grad((reference(layer, x) * probe).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        assert a.dtype is b.dtype is torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize('tokens', [9, 90])
def test_autocast_leaves_what_autocast_leaves(tokens):
    layer = make(inp=32, out=24, rank=4, alpha=1.0, live=False)
    x = torch.randn(tokens, 32, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        plain = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer(x), plain), 'zero B: the bits of the plain layer'
        double = make(dtype=torch.float64)
        assert double(torch.randn(tokens, 6, dtype=torch.float64)).dtype is torch.float64


@pytest.fixture
def fresh_compiler():
    """Shapes seen by an earlier test would make this one's dynamic."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize('tokens', [FEW, MANY])
def test_compiled(fresh_compiler, tokens):
    layer = make(dtype=torch.float64)
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    for _ in range(2):
        got = torch.autograd.grad(compiled(x).square().sum(), inputs)
        want = torch.autograd.grad(reference(layer, x).square().sum(), inputs)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
        with torch.no_grad():
            layer.lora_B.mul_(2)  # The graph must hold no old sum.
            torch.testing.assert_close(compiled(x), reference(layer, x))


def test_compiled_backward_never_forms_the_full_gradient(fresh_compiler):
    shapes = set()

    def backend(graph, inputs):
        for node in graph.graph.nodes:
            value = node.meta.get('val')
            if node.op == 'call_function' and isinstance(value, torch.Tensor):
                shapes.add(tuple(value.shape))
        return graph.forward

    layer = make(inp=13, out=17, rank=3)
    compiled = torch.compile(
        layer,
        backend=aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=backend),
        fullgraph=True,
    )
    compiled(torch.randn(70, 13, requires_grad=True)).sum().backward()
    assert (3, 13) in shapes and (17, 3) in shapes and (70, 13) in shapes
    assert (17, 13) not in shapes and (13, 17) not in shapes


def test_compiled_for_batches_of_any_size(fresh_compiler):
    layer = make(dtype=torch.float64)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True, dynamic=True)
    for tokens in (FEW, 20, 3, 50):
        x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
        inputs = (x, layer.lora_A, layer.lora_B)
        got = torch.autograd.grad(compiled(x).square().sum(), inputs)
        want = torch.autograd.grad(reference(layer, x).square().sum(), inputs)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_under_autocast(fresh_compiler):
    layer = make(inp=32, out=24, rank=4, alpha=1.0)
    x = torch.randn(90, 32, requires_grad=True)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = compiled(x)
        torch.testing.assert_close(y, layer(x))
    got = torch.autograd.grad(y.float().sum(), (x, layer.lora_A, layer.lora_B))
    want = torch.autograd.grad(reference(layer, x).sum(), (x, layer.lora_A, layer.lora_B))
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize('tokens', [FEW, MANY])
@pytest.mark.parametrize('reentrant', [False, True])
def test_activation_checkpointing(reentrant, tokens):
    layer = make(dtype=torch.float64)
    x = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
    with torch.no_grad():
        layer(x)  # A sum that is ready by now must not change the form of the second run.
    y.square().sum().backward()
    want = torch.autograd.grad(reference(layer, x).square().sum(), (x, layer.lora_A, layer.lora_B))
    torch.testing.assert_close((x.grad, layer.lora_A.grad, layer.lora_B.grad), want)


@pytest.mark.parametrize('tokens', [FEW, MANY])
def test_checkpointed_calls_whose_input_needs_no_gradient(tokens):
    """The first layer's input is data; calls share the layer; autocast is on."""
    layer = make(inp=6, out=6)
    x = torch.randn(tokens, 6)

    def run(wrap):
        layer.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            out = wrap(layer, wrap(layer, x).relu())
        out.float().square().sum().backward()
        return layer.lora_A.grad.clone(), layer.lora_B.grad.clone()

    want = run(lambda module, data: module(data))
    checkpoint = torch.utils.checkpoint.checkpoint
    got = run(lambda module, data: checkpoint(module, data, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize('tokens', [100, 8400])
@pytest.mark.parametrize('lowered', [None, torch.bfloat16, torch.float16])
def test_on_a_gpu(lowered, tokens):
    layer = make(inp=256, out=1024, rank=8, alpha=8.0).cuda()
    x = torch.randn(tokens, 256, device='cuda', requires_grad=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    with torch.autocast('cuda', lowered or torch.float16, enabled=lowered is not None):
        y = layer(x)
    assert y.dtype is (lowered or torch.float32)
    got = torch.autograd.grad(y.float().square().mean(), inputs)
    want = torch.autograd.grad(reference(layer, x).square().mean(), inputs)
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() < (0.02 if lowered else 1e-3) * b.norm()


@pytest.mark.gpu
@pytest.mark.parametrize('tokens', [100, 8400])
def test_compiled_and_checkpointed_on_a_gpu(fresh_compiler, tokens):
    layer = make(inp=256, out=1024, rank=8, alpha=8.0).cuda()
    x = torch.randn(tokens, 256, device='cuda', requires_grad=True)
    inputs = (x, layer.lora_A, layer.lora_B)
    want = torch.autograd.grad(layer(x).square().mean(), inputs)
    compiled = torch.compile(layer, fullgraph=True)
    checkpointed = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    for y in (compiled(x), checkpointed):
        got = torch.autograd.grad(y.square().mean(), inputs)
        for a, b in zip(got, want, strict=True):
            assert (a - b).norm() < 1e-3 * b.norm()


def test_copies_and_pickles_leave_the_sum_behind():
    layer = make()
    x = torch.randn(MANY, 6)
    want = layer(x)
    assert layer._cache is not None
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert other._cache is None
        assert torch.equal(other(x), want)
        assert other.original.weight is other.weight is not layer.weight
        with torch.no_grad():
            other.lora_B.zero_()
        assert torch.equal(layer(x), want)


def test_merge_and_unmerge():
    layer = make(inp=64, out=48, rank=4)
    x = torch.randn(10, 64)
    weight = layer.weight.detach().clone()
    want = layer(x)
    layer.merge()
    assert layer.merged
    assert (layer(x) - want).abs().max() < 1e-5
    assert (F.linear(x, layer.weight, layer.bias) - want).abs().max() < 1e-5
    with pytest.raises(RuntimeError, match='merged already'):
        layer.merge()
    with pytest.raises(RuntimeError, match='unmerge'):
        layer.reset()
    with pytest.raises(RuntimeError, match='unmerge'):
        layer.load_state_dict(layer.state_dict())
    copied = copy.deepcopy(layer)
    for each in (layer, copied):
        each.unmerge()
        assert not each.merged
        assert torch.equal(each.weight, weight)
        assert torch.equal(each(x), want)
    with pytest.raises(RuntimeError, match='not merged'):
        layer.unmerge()


def test_merging_a_zero_update_moves_no_bit():
    layer = make(live=False)
    with torch.no_grad():
        layer.weight[0, 0] = -0.0
    before = layer.weight.detach().clone()
    layer.merge()
    assert torch.equal(layer.weight.view(torch.int32), before.view(torch.int32))


def test_delta_and_reset():
    layer = make()
    delta = layer.delta()
    torch.testing.assert_close(delta, 1.5 * torch.einsum('or,ri->oi', layer.lora_B, layer.lora_A))
    assert delta.requires_grad
    old = layer.lora_A.detach().clone()
    layer.reset(torch.Generator().manual_seed(1))
    assert not layer.delta().any() and not torch.equal(layer.lora_A, old)
    assert layer.lora_A.requires_grad


def test_disable_adapters():
    model = nn.Sequential(make(seed=1), nn.ReLU(), make(inp=5, out=4, seed=2))
    x = torch.randn(3, 6)
    base = nn.Sequential(model[0].original, nn.ReLU(), model[2].original)
    live, plain = model(x), base(x)
    assert not torch.allclose(live, plain)
    with disable_adapters(model):
        assert torch.equal(model(x), plain)
        with disable_adapters(model[0]):
            assert torch.equal(model(x), plain)
        assert torch.equal(model(x), plain), 'the inner block must not wake the outer one'
    assert torch.equal(model(x), live)
    model[0].enabled = False
    with pytest.raises(KeyError), disable_adapters(model):
        raise KeyError
    assert not model[0].enabled and model[2].enabled
    with pytest.raises(RuntimeError, match='off'):
        model[0].merge()
    model[0].enabled = True
    model[2].merge()
    with pytest.raises(RuntimeError, match=r"'2'.*unmerge"), disable_adapters(model):
        pass
    with pytest.raises(RuntimeError, match='unmerge'):
        model[2].enabled = False
    assert model[0].enabled


def test_a_trainable_base_is_refused():
    layer = make()
    layer.weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match='requires_grad=False'):
        layer(torch.randn(2, 6))
    with torch.no_grad():
        layer(torch.randn(2, 6))


@pytest.mark.parametrize('rank', [0, -1, 6, 1.0, True])
def test_bad_rank(rank):
    with pytest.raises(ValueError, match=r'rank=.*\(5, 8\).*1 to 5'):
        LoRALinear.from_linear(nn.Linear(8, 5), rank, 1.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match='alpha'):
        LoRALinear.from_linear(nn.Linear(8, 5), 2, 0.0)
    with pytest.raises(TypeError, match='LoRALinear'):
        LoRALinear.from_linear(make(), 2, 1.0)
    with pytest.raises(TypeError, match='Conv1d'):
        LoRALinear.from_linear(nn.Conv1d(1, 1, 1), 2, 1.0)


def test_equals_loralib():
    loralib = pytest.importorskip('loralib')
    layer = make(inp=12, out=10, rank=3, alpha=2.0)
    other = loralib.Linear(12, 10, r=3, lora_alpha=2)
    other.load_state_dict(layer.state_dict())  # the same names
    x, y = (torch.randn(4, 12).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    torch.testing.assert_close(layer(x), other(y))
    layer(x).square().sum().backward()
    other(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(layer.lora_A.grad, other.lora_A.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.lora_B.grad, other.lora_B.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_output_may_be_changed_in_place(shape):
    """FFNs follow with ``ReLU(inplace=True)``."""
    torch.manual_seed(0)
    layer = LoRALinear.from_linear(nn.Linear(6, 4), rank=2, alpha=2)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(shape)
    torch.relu_(layer(x)).square().sum().backward()
    A, B = (p.detach().clone().requires_grad_() for p in (layer.lora_A, layer.lora_B))
    effective = layer.weight + layer.scaling * B @ A
    torch.relu(torch.nn.functional.linear(x, effective, layer.bias)).square().sum().backward()
    torch.testing.assert_close(layer.lora_A.grad, A.grad)
    torch.testing.assert_close(layer.lora_B.grad, B.grad)
