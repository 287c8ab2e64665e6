"""Encoder layers computed again: the same losses and gradients out of less memory."""

import pytest
import torch

from mmforget.engine.activation_checkpointing import check_num_cp, checkpointed_encoder
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.trainable import GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('dress',), ())


@pytest.fixture
def step(build_tiny):
    """Dropout is awake; backbone and neck are the frozen trunk."""
    model = build_tiny()
    trainable = GroupSparseLoRA(rank=2)
    trainable.inject(model, TASK, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(trainable.parameters()):
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    return ForgettingStep(model, build_tap(model), GSLoRA(forget_weight=0.5), trainable).train()


def run(step, batch):
    """Losses, gradients and the bytes that autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = step.trainable.parameters()
    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = step(batch, 0)
    total = sum(value for name, value in losses.items() if name.startswith('loss'))
    return losses, torch.autograd.grad(total, parameters), sum(kept.values())


def test_losses_and_gradients_are_those_of_the_plain_layers(step, tiny_batch):
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}
    plain_losses, plain_gradients, plain_bytes = run(step, batch)
    kept = [plain_bytes]
    for num_cp in (1, 2):
        with checkpointed_encoder(step.detector, num_cp):
            losses, gradients, bytes_ = run(step, batch)
        for name, value in plain_losses.items():
            assert torch.equal(losses[name], value), name
        for gradient, wanted in zip(gradients, plain_gradients, strict=True):
            # The lowest layer's input needs no gradient, its adapters do.
            assert wanted.any()
            torch.testing.assert_close(gradient, wanted)
        kept.append(bytes_)
    assert kept[2] < kept[1] < kept[0]
    assert not any('forward' in layer.__dict__ for layer in step.detector.encoder.layers)


def test_nothing_is_kept_without_gradients(step, tiny_batch):
    batch = {FORGET: tiny_batch(1), RETAIN: tiny_batch(1)}
    with torch.no_grad(), checkpointed_encoder(step.detector, 2):
        torch.manual_seed(7)
        losses = step(batch, 0)
    assert not any(value.requires_grad for value in losses.values())


def test_a_wrapper_of_mmdetections_own_is_set_aside(step, tiny_batch):
    """``encoder.num_cp`` puts a re-entrant one on the layers where fairscale is installed."""
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(2)}
    encoder = step.detector.encoder
    wanted = run(step, batch)

    def reentrant(*args, **kwargs):
        raise AssertionError('called')

    encoder.num_cp = 1
    encoder.layers[0].forward = reentrant
    with checkpointed_encoder(step.detector, 1):
        losses, *_ = run(step, batch)
    assert all(torch.equal(losses[name], value) for name, value in wanted[0].items())
    assert encoder.layers[0].forward is reentrant


@pytest.mark.parametrize('num_cp', [-1, 3])
def test_as_many_layers_as_there_are(step, num_cp):
    check_num_cp(step.detector, 0)
    check_num_cp(step.detector, 2)
    with pytest.raises(ValueError, match=f'num_cp is {num_cp}; expected.* from 0 to 2'):
        check_num_cp(step.detector, num_cp)


def test_a_run_of_two_tasks(make_runner, reference_run, tmp_path):
    runner = make_runner(tmp_path, **{'train_cfg.num_cp': 2})
    runner.train()
    found = torch.load(tmp_path / 'task_2.pth', weights_only=True)['state_dict']
    wanted = torch.load(reference_run.work_dir / 'task_2.pth', weights_only=True)['state_dict']
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
