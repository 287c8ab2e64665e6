"""Mixed precision: products in half of the bits, losses and matching in float32."""

import json

import pytest
import torch

from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.testing import tiny_detector
from mmforget.trainable import GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('dress',), ())
AMP = {'optim_wrapper.type': 'AmpOptimWrapper'}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_step_under_autocast(build_tiny, tiny_batch, dtype):
    model = build_tiny(tiny_detector(dropout=0.0))
    trainable = GroupSparseLoRA(rank=2)
    trainable.inject(model, TASK, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(trainable.parameters()):
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    step = ForgettingStep(model, build_tap(model), GSLoRA(forget_weight=0.5), trainable).train()
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}
    wanted = step(batch, 0)
    with torch.autocast('cpu', dtype=dtype):
        losses = step(batch, 0)
    changed = False
    for name, value in wanted.items():
        assert losses[name].dtype == torch.float32
        assert losses[name].item() == pytest.approx(value.item(), rel=0.1), name
        changed |= losses[name].item() != value.item()
    assert changed
    total = sum(value for name, value in losses.items() if name.startswith('loss'))
    for gradient in torch.autograd.grad(total, trainable.parameters()):
        assert gradient.dtype == torch.float32
        assert torch.isfinite(gradient).all() and gradient.any()


@pytest.mark.skipif(torch.cuda.is_available(), reason='for machines without a GPU')
def test_without_a_gpu_it_is_refused_before_any_work(make_runner, tmp_path):
    runner = make_runner(tmp_path, **AMP)
    with pytest.raises(RuntimeError, match="'AmpOptimWrapper'.*needs a GPU.*'OptimWrapper'"):
        runner.train()
    assert not (tmp_path / 'resume.pth').exists()


@pytest.mark.gpu
def test_a_run_in_half_precision(make_runner, tmp_path):
    runner = make_runner(tmp_path, **AMP)
    runner.train()
    rows = json.loads((tmp_path / 'forgetting.json').read_text())['tasks']
    assert [row['steps'] for row in rows] == [4, 4]
