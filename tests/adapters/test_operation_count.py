"""Counted operations against what torch counts while the layer runs."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmforget.adapters.lora import LoRALinear, _SumLinear, _TwoProductLinear
from mmforget.adapters.operation_count import (
    Gradients,
    LowRankShape,
    sum_multiply_adds,
    sum_pays,
    two_product_multiply_adds,
)

ALL = Gradients()
NONE = Gradients(x=False, lora_A=False, lora_B=False)


def added(own, left, right, **_):
    """The counter does not know ``addmm_``; two operations are one multiply-add."""
    return 2 * left[0] * left[1] * right[1]


def counted(form, tokens, needed, calls):
    """Multiply-adds of the real layer, 13 to 17 of rank 3."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(13, 17), 3, 1.0)
    layer.lora_A.requires_grad_(needed.lora_A)
    layer.lora_B.requires_grad_(needed.lora_B)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added})
    with counter:
        outputs = []
        for _ in range(calls):
            x = torch.randn(tokens, 13, requires_grad=needed.x)
            weight = layer._sum(torch.float32) if form is _SumLinear else layer.weight
            rest = (layer.bias, layer.lora_A, layer.lora_B, layer.scaling, layer)
            outputs.append(form.apply(x, weight, *rest).sum())
        if needed != NONE:
            torch.stack(outputs).sum().backward()
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize('calls', [1, 3])
@pytest.mark.parametrize('tokens', [1, 20])
@pytest.mark.parametrize(
    'needed', [ALL, NONE, Gradients(x=False), Gradients(lora_A=False), Gradients(lora_B=False)]
)
def test_counts_are_those_of_the_running_layer(needed, tokens, calls):
    shape = LowRankShape(13, 17, 3)
    assert counted(_SumLinear, tokens, needed, calls) == sum_multiply_adds(
        shape, tokens, needed, calls
    )
    if needed != NONE:
        assert counted(_TwoProductLinear, tokens, needed, calls) == two_product_multiply_adds(
            shape, tokens, needed, calls
        )


@pytest.mark.parametrize('rank', [4, 8, 64])
def test_the_sum_pays_from_a_batch_of_the_layers_size(rank):
    """in * out / (in + out) = 204.8 tokens, whatever the rank; shared by four calls, a quarter."""
    shape = LowRankShape(256, 1024, rank)
    assert not sum_pays(shape, 204, ALL) and sum_pays(shape, 205, ALL)
    assert not sum_pays(shape, 51, ALL, calls=4) and sum_pays(shape, 52, ALL, calls=4)
    assert not sum_pays(shape, 0, ALL)
