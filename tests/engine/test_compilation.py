"""Compiled parts give what the plain ones give, and are plain again afterwards."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmforget.engine.activation_checkpointing import checkpointed_encoder
from mmforget.engine.compilation import compiled
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.testing import tiny_detector
from mmforget.trainable import GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('dress',), ())


@pytest.fixture
def step(build_tiny):
    torch.compiler.reset()
    model = build_tiny(tiny_detector(dropout=0.0))
    trainable = GroupSparseLoRA(rank=2)
    trainable.inject(model, TASK, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(trainable.parameters()):
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    yield ForgettingStep(model, build_tap(model), GSLoRA(forget_weight=0.5), trainable).train()
    torch.compiler.reset()


def run(step, batch):
    losses = step(batch, 0)
    total = sum(value for name, value in losses.items() if name.startswith('loss'))
    return losses, torch.autograd.grad(total, step.trainable.parameters())


def assert_close(found, wanted):
    for name, value in wanted[0].items():
        assert found[0][name].item() == pytest.approx(value.item(), rel=1e-5), name
    for gradient, expected in zip(found[1], wanted[1], strict=True):
        assert expected.any()
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_losses_and_gradients_are_those_of_the_plain_detector(step, tiny_batch):
    """With an encoder layer whose activations are computed again, and one that keeps them."""
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}
    wanted = run(step, batch)
    backend = CompileCounterWithBackend('aot_eager')
    options = {'backend': backend}
    with compiled(step.detector, options), checkpointed_encoder(step.detector, num_cp=1):
        assert_close(run(step, batch), wanted)
        seen = backend.frame_count
        assert seen >= 4  # Backbone, neck, and pieces of the layers of both kinds.
        assert_close(run(step, batch), wanted)
        assert backend.frame_count == seen  # Nothing is compiled twice.
        step.trainable.prune(['encoder.layers.1'])
        found = run(step, batch)
    assert not any('forward' in module.__dict__ for module in step.detector.modules())
    assert_close(found, run(step, batch))


def test_off_changes_nothing(step):
    with compiled(step.detector, False):
        assert not any('forward' in module.__dict__ for module in step.detector.modules())


def test_a_run_of_two_tasks(make_runner, tmp_path):
    """What is saved is the plain detector; the parts are compiled, and plain again at the end."""
    torch.compiler.reset()
    compiled_pieces = []

    def backend(module, inputs):
        compiled_pieces.append(module)
        return module.forward

    runner = make_runner(
        tmp_path,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        **{'train_cfg.compile': {'backend': backend}, 'train_cfg.max_steps': 2},
    )
    names = set(runner.model.state_dict())
    runner.train()
    saved = torch.load(tmp_path / 'task_2.pth', weights_only=True)['state_dict']
    assert compiled_pieces and set(saved) == names
    assert not any('forward' in module.__dict__ for module in runner.model.modules())
    torch.compiler.reset()
