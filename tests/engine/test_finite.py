"""NaN and infinity stop a run before they reach a file, and the message says where."""

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.engine.finite import (
    all_finite,
    check_finite,
    check_weights,
    matching_explained,
    on_host,
)

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
ADAPTER = 'encoder.layers.0.ffn.layers.0.0.lora_A'


def test_the_broken_term_is_named_apart_from_the_finite_ones():
    nan, one = torch.tensor(float('nan')), torch.tensor(1.0)
    check_finite(one, {'loss_retain_cls': one, 'loss': one}, 'task_2', 7)
    message = (
        r'The objective is nan in task_2, step 7: loss_retain_cls=nan \(finite: loss_forget_cls=1\)'
        r'\. Expected finite losses\. Lower the learning rate.*clip_grad.*resume.pth\) is untouched'
    )
    terms = {'loss_retain_cls': nan, 'loss_forget_cls': one, 'loss': nan}
    with pytest.raises(FloatingPointError, match=message):
        check_finite(nan, terms, 'task_2', 7)
    with pytest.raises(FloatingPointError, match=r'is inf in task_1, step 0: the sum \(finite: a='):
        check_finite(torch.tensor(float('inf')), {'a': 3e38, 'b': 3e38}, 'task_1', 0)


def test_losses_come_to_the_host_as_they_are():
    weight = torch.tensor(0.1, requires_grad=True)
    terms = {
        'loss': weight * 3,
        'acc': torch.tensor(1 / 3, dtype=torch.float64),
        'half': torch.tensor(0.7, dtype=torch.bfloat16),
    }
    got = on_host(terms)
    assert list(got) == list(terms)
    assert [v.item() for v in got.values()] == [v.item() for v in terms.values()]
    assert not any(v.requires_grad for v in got.values())


@pytest.mark.parametrize('broken', [float('nan'), float('inf'), -float('inf')])
def test_one_broken_entry_is_enough(broken):
    tensors = [torch.full((3, 4), 3e38), torch.zeros(0), torch.tensor([1.0, 2.0])]
    assert all_finite(tensors), 'large, but finite'
    assert all_finite([]) and all_finite([torch.zeros(0)])
    tensors[2][1] = broken
    assert not all_finite(tensors)
    assert not all_finite([torch.tensor([broken], dtype=torch.float16)])


def test_other_errors_of_a_forward_pass_through(build_tiny):
    with pytest.raises(ValueError, match='^something else$'):
        with matching_explained(build_tiny(), 'task_1', 0):
            raise ValueError('something else')


def test_frozen_weights_are_not_looked_at_before_saving(build_tiny):
    model = build_tiny()
    model.level_embed.data[0, 0] = float('nan')
    model.level_embed.requires_grad_(False)
    check_weights(model, 'task_1', 3)
    model.level_embed.requires_grad_(True)
    with pytest.raises(
        FloatingPointError, match='After step 3 of task_1 .*finite: level_embed. The'
    ):
        check_weights(model, 'task_1', 3)


class Break(Hook):
    """Puts NaN into an adapter, after the step number ``at`` or before the next."""

    priority = 'VERY_HIGH'

    def __init__(self, at, stage):
        self.at = at
        self.stage = stage

    def _break(self, runner):
        with torch.no_grad():
            runner.model.get_parameter(ADAPTER)[0, 0] = float('nan')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == 'after' and batch_idx + 1 == self.at:
            self._break(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.stage == 'before' and batch_idx == self.at:
            self._break(runner)


@pytest.mark.parametrize(
    ('at', 'stage', 'message', 'kept'),
    [
        (2, 'before', rf'not finite in task_1, step 2, .*matched.*finite: {ADAPTER}\. Lower', 2),
        (2, 'after', rf'After step 2 of task_1 weights are not finite: {ADAPTER}\. The losses', 1),
        (4, 'after', rf'After step 4 of task_1 weights are not finite: {ADAPTER}\.', 3),
    ],
)
def test_broken_weights_reach_no_file(make_runner, tmp_path, at, stage, message, kept):
    """Whether the matcher meets them, a resume checkpoint is due, or the task ends."""
    runner = make_runner(
        tmp_path, Break(at, stage), **NO_VALIDATION, **{'train_cfg.checkpoint_interval': 1}
    )
    with pytest.raises(FloatingPointError, match=message):
        runner.train()
    checkpoint = torch.load(tmp_path / 'resume.pth', weights_only=True)
    assert checkpoint['meta']['mmforget']['task_step'] == kept
    assert all(v.isfinite().all() for v in checkpoint['state_dict'].values())
    assert not (tmp_path / 'task_1.pth').exists()
    assert not (tmp_path / 'adapters').exists()
