"""The ranking pass, the cached trunk, a base from another run, and checkpoint hooks in the loop."""

import json

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.engine.ranking import stream_gradients
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import build_tap
from mmforget.trainable import GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('dress',), ())
NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


def ranked_hook(**sparsity):
    return {
        'custom_hooks': [
            {
                'type': 'mmforget.GroupSparseLoRAHook',
                'rank': 2,
                'sparsity': {'type': 'GroupRanking', 'batches': 2, **sparsity},
            }
        ]
    }


@pytest.fixture
def step(build_tiny):
    model = build_tiny()
    trainable = GroupSparseLoRA(rank=2, sparsity={'type': 'GroupRanking', 'batches': 2})
    trainable.inject(model, TASK, seed=0)
    return ForgettingStep(model, build_tap(model), GSLoRA(forget_weight=0.5), trainable).train()


def test_gradients_of_the_streams_are_those_of_separate_backward_passes(step, tiny_batch):
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}
    before = {k: v.clone() for k, v in step.detector.state_dict().items()}
    forget, retain = stream_gradients(step, [batch, batch], seed=5, task=0)
    groups = step.trainable.groups
    assert list(forget) == list(retain) == list(groups)
    for stream, gradients in ((FORGET, forget), (RETAIN, retain)):
        from mmforget.engine.randomness import seed_step

        step.zero_grad()
        seed_step(5, 0, 1)
        losses = step(batch, 0)
        sum(v for k, v in losses.items() if k.startswith(f'loss_{stream}')).backward()
        for name, group in groups.items():
            expected = torch.cat([p.grad.flatten() for p in group.effect()])
            assert gradients[name].shape == (2, expected.numel())
            torch.testing.assert_close(gradients[name][1], expected)
            assert expected.any()
    assert all(torch.equal(before[k], v) for k, v in step.detector.state_dict().items())


def test_a_method_without_named_streams_cannot_be_ranked(step, tiny_batch, monkeypatch):
    monkeypatch.setattr(step.method, 'losses', lambda f, r: {'loss': f.losses['loss_cls']})
    with pytest.raises(ValueError, match='no loss named loss_forget'):
        stream_gradients(step, [{FORGET: tiny_batch(1), RETAIN: tiny_batch(1)}], 0, 0)


def test_ranked_out_groups_never_move(make_runner, tmp_path):
    runner = make_runner(tmp_path, **ranked_hook(strength=1.0), **NO_VALIDATION)
    before = {k: v.clone() for k, v in torch.load(runner._load_from)['state_dict'].items()}
    runner.train()
    row = json.loads((tmp_path / 'forgetting.json').read_text())['tasks'][0]
    living = [name for name, norm in row['groups'].items() if norm > 0]
    assert len(living) == 1 and len(row['groups']) == 4
    after = torch.load(tmp_path / 'task_1.pth', weights_only=True)['state_dict']
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert moved and all(k.startswith(living[0]) for k in moved)
    assert row['trainable'] == 2 * 2 * (16 + 32)


class Encoders(Hook):
    """Counts how often the encoder's first layer runs in each step."""

    def __init__(self):
        self.calls = []

    def before_train(self, runner):
        def count(*_):
            if self.calls:
                self.calls[-1] += 1

        runner.model.encoder.layers[0].register_forward_hook(count)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.calls.append(0)


def test_an_image_goes_through_the_frozen_trunk_once(make_runner, tmp_path):
    overrides = {
        'custom_hooks': [
            {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2, 'targets': r'decoder.*ffn.*'}
        ],
        'train_cfg.max_steps': 8,
        'train_cfg.scenario': {
            'tasks': [['bag']],
            'forget': {'images': 3, 'augmentations': 1},
            'retain': {'images': 3, 'augmentations': 1},
        },
        **NO_VALIDATION,
    }
    plain, cached = Encoders(), Encoders()
    make_runner(tmp_path / 'plain', plain, **overrides).train()
    make_runner(
        tmp_path / 'cached', cached, **overrides, **{'train_cfg.trunk_cache_mb': 64}
    ).train()
    assert plain.calls == [1] * 8
    # Three images of each stream, one variant each: the third step has seen them all.
    assert cached.calls[0] == 1 and not any(cached.calls[3:])
    a, b = (
        torch.load(tmp_path / n / 'task_1.pth', weights_only=True)['state_dict']
        for n in ('plain', 'cached')
    )
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)


def test_images_of_several_batches_go_through_the_trunk_together(make_runner, tmp_path):
    """Twelve images in steps of two and two: in fours, without a copy that fills up."""

    class Counted(Hook):
        images = 0

        def before_train(self, runner):
            def count(module, inputs, output):
                self.images += len(output)

            runner.model.encoder.layers[0].register_forward_hook(count)

    counted = Counted()
    stream = {'images': 6, 'augmentations': 1}
    make_runner(
        tmp_path,
        counted,
        **{
            'custom_hooks': [
                {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2, 'targets': r'decoder.*ffn.*'}
            ],
            'train_cfg.trunk_cache_mb': 64,
            'train_cfg.max_steps': 9,
            'train_cfg.scenario': {'tasks': [['bag']], 'forget': stream, 'retain': stream},
            # Without a random flip, images of both streams may be the same.
            'train_dataloader.dataset.pipeline.3.prob': 0.0,
        },
        **NO_VALIDATION,
    ).train()
    assert counted.images in (8, 12)


def test_evaluation_remembers_the_untouched_trunk(make_runner, tmp_path):
    """Four images, evaluated before and after two tasks: each goes through the encoder once."""

    class Evaluations(Hook):
        calls = 0

        def before_val(self, runner):
            encoder = runner.model.encoder.layers[0]
            self.handle = encoder.register_forward_hook(self.count)

        def count(self, module, inputs, output):
            self.calls += len(output)

        def after_val(self, runner):
            self.handle.remove()

    overrides = {
        'custom_hooks': [
            {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2, 'targets': r'decoder.*ffn.*'}
        ]
    }
    plain, cached = Evaluations(), Evaluations()
    make_runner(tmp_path / 'plain', plain, **overrides).train()
    make_runner(
        tmp_path / 'cached', cached, **overrides, **{'train_cfg.trunk_cache_mb': 64}
    ).train()
    assert (plain.calls, cached.calls) == (12, 4)
    ours, theirs = (
        json.loads((tmp_path / n / 'forgetting.json').read_text()) for n in ('cached', 'plain')
    )
    assert ours['base']['full'].keys() == theirs['base']['full'].keys()
    for key, value in theirs['base']['full'].items():
        assert ours['base']['full'][key] == pytest.approx(value, abs=1e-3)


def test_base_of_another_run_saves_its_evaluation(make_runner, reference_run, tmp_path):
    class Validations(Hook):
        number = 0

        def before_val(self, runner):
            self.number += 1

    counter = Validations()
    base = reference_run.work_dir / 'forgetting.json'
    make_runner(tmp_path, counter, **{'train_cfg.base': str(base)}).train()
    assert counter.number == 2
    ours, theirs = (
        json.loads((f / 'forgetting.json').read_text()) for f in (tmp_path, base.parent)
    )
    assert ours['base'] == theirs['base']


def test_a_checkpoint_hooks_interval_is_taken_over(make_runner, tmp_path):
    """The hook itself would write a detector with adapters in it."""
    hook = {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 3}
    runner = make_runner(tmp_path, **{'default_hooks.checkpoint': hook}, **NO_VALIDATION)
    runner.train()
    assert runner.train_loop.checkpoint_interval == 3
    assert not list(tmp_path.glob('iter_*.pth'))
