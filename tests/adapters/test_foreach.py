"""Fused norms and scaling against the plain formulas, and what they start on a device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmforget.adapters import group_norms, make_groups, proximal_step
from mmforget.adapters.foreach import frobenius_norms, largest, scale_, update_norms
from mmforget.adapters.lora import LoRALinear

VIEWS = ('view', 'expand', 'split', 'unbind', 'detach', 'alias', 'select', 'transpose', 't.')


class Calls(TorchDispatchMode):
    """Notes what reaches the device: calls that are no views, and waits for a number."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix('aten.')
        if not name.startswith(VIEWS):
            self.names.append(name)
        return func(*args, **(kwargs or {}))

    @property
    def waits(self):
        return [name for name in self.names if 'local_scalar' in name]


def uneven_sets(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [[(3, 4)], [(2, 5), (7, 2), (1, 1)], [(4, 3), (3, 4)]]
    return [
        [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in one]
        for one in shapes
    ]


def layers(blocks):
    made = {}
    for index in range(blocks):
        for name, inp, out in (('fc1', 6, 8), ('fc2', 8, 6)):
            layer = LoRALinear(torch.nn.Linear(inp, out), 2, 3.0)
            torch.nn.init.normal_(layer.lora_B)
            made[f'blocks.{index}.mlp.{name}'] = layer
    return made


@pytest.mark.parametrize('eps', [0.0, 1e-12, 0.5])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_frobenius_norms_and_their_gradient(eps, dtype):
    sets = uneven_sets(dtype)
    matrices = [m for one in sets for m in one]
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=dtype)
    want = torch.stack([(sum(m.square().sum() for m in one) + eps).sqrt() for one in sets])
    got = frobenius_norms(sets, eps)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    expected = torch.autograd.grad((want * weights).sum(), matrices)
    found = torch.autograd.grad((got * weights).sum(), matrices)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_frobenius_gradcheck():
    sets = uneven_sets(torch.float64)
    sizes = [len(one) for one in sets]

    def run(*matrices):
        it = iter(matrices)
        return frobenius_norms([[next(it) for _ in range(size)] for size in sizes])

    assert torch.autograd.gradcheck(run, [m for one in sets for m in one])


def test_update_norms_against_the_products_themselves():
    """Sets of different sizes, adapters of different shapes and scales."""
    torch.manual_seed(0)
    sizes = [(6, 8, 2, 0.5), (8, 6, 2, 0.5), (6, 8, 2, 2.0), (5, 5, 3, 1.0), (6, 8, 2, 0.5)]
    members = [
        (torch.randn(r, i, requires_grad=True), torch.randn(o, r, requires_grad=True), s)
        for i, o, r, s in sizes
    ]
    sets = [members[:1], members[1:4], members[4:]]
    want = torch.stack([sum((s * b @ a).square().sum() for a, b, s in one).sqrt() for one in sets])
    got = update_norms(sets)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    matrices = [m for a, b, _ in members for m in (a, b)]
    expected = torch.autograd.grad(want.sum(), matrices)
    for a, b in zip(torch.autograd.grad(got.sum(), matrices), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(update_norms(sets), got)


def test_largest_and_scale():
    sets = uneven_sets()
    want = [max(m.abs().max().item() for m in one) for one in sets]
    assert largest(sets).tolist() == want
    before = [[m.detach().clone() for m in one] for one in sets]
    versions = [m._version for one in sets for m in one]
    scale_(sets, torch.tensor([0.5, 0.0, -2.0]))
    for one, old, factor in zip(sets, before, (0.5, 0.0, -2.0), strict=True):
        for matrix, was in zip(one, old, strict=True):
            assert torch.equal(matrix.detach(), factor * was)
    assert all(m._version > v for m, v in zip([m for s in sets for m in s], versions, strict=True))
    tiny = torch.full((2, 2), 1e-30)  # Its square is 0 in float32.
    assert largest([[tiny]]).item() > 0
    assert largest([[torch.tensor([[1.0, float('nan')]])]]).isnan().item()


def test_a_penalty_of_many_groups_takes_the_calls_of_few():
    """Forward, backward and threshold; adding up gradients is autograd's own."""
    counts = []
    for blocks in (2, 12):
        groups = list(make_groups(layers(blocks)).values())
        for kind in ('ab', 'b', 'ba'):
            with Calls() as forward:
                norms = group_norms(groups, kind)
            counts.append((blocks, kind, len(forward.names)))
            assert not forward.waits
        penalty = group_norms(groups, 'ab').sum()
        parameters = [p for group in groups for p in group.parameters()]
        with Calls() as backward:
            torch.autograd.grad(penalty, parameters)
        counts.append((blocks, 'backward', len(backward.names)))
        with Calls() as threshold:
            proximal_step(groups, torch.full((blocks,), 0.1))
        counts.append((blocks, 'threshold', len(threshold.names)))
        assert norms.shape == (blocks,)
        assert not backward.waits and not threshold.waits
    half = len(counts) // 2
    for (_, name, few), (_, _, many) in zip(counts[:half], counts[half:], strict=True):
        assert few == many <= 30, name


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu():
    torch.manual_seed(0)
    made = layers(3)
    groups = list(make_groups(made).values())
    kinds = ('ab', 'b', 'ba')
    want = [group_norms(groups, kind).tolist() for kind in kinds]
    for layer in made.values():
        layer.cuda()
    parameters = [p for group in groups for p in group.parameters()]
    thresholds = torch.full((3,), 0.1, device='cuda')
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        norms = [group_norms(groups, kind) for kind in kinds]
        for norm in norms:
            torch.autograd.grad(norm.sum(), parameters, allow_unused=True)
        proximal_step(groups, thresholds)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    for got, expected in zip(norms, want, strict=True):
        assert got.tolist() == pytest.approx(expected, rel=1e-5)
