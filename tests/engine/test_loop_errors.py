"""What is wrong in a config is said clearly and before any work."""

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.methods.gs_lora import GSLoRA

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
HOOK = {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2}
CLASSES = [
    *('t-shirt', 'trouser', 'pullover', 'dress', 'coat'),
    *('sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot'),
]


@pytest.mark.parametrize(
    ('overrides', 'error', 'message'),
    [
        ({'train_cfg.scenario.tasks': [['hat']]}, ValueError, "names the class 'hat'.*t-shirt"),
        ({'train_cfg.scenario.tasks': [['bag'], ['bag']]}, ValueError, "'bag'.*forgets already"),
        ({'train_cfg.scenario.tasks': [CLASSES]}, ValueError, 'nothing is left to retain'),
        ({'train_cfg.scenario.order': 'random'}, ValueError, r"keys \['forget', 'order'"),
        ({'train_cfg.scenario.retain': {'ratio': 2}}, ValueError, 'exactly one|share'),
        ({'train_cfg.max_steps': 0}, ValueError, 'max_steps is 0'),
        ({'train_cfg.retain_epochs': 2}, ValueError, 'max_steps=4 and retain_epochs=2; give one'),
        (
            {
                'train_cfg.max_steps': None,
                'train_cfg.retain_epochs': 2,
                'train_cfg.scenario.retain': {'images': 1},
            },
            ValueError,
            r'have \[1, 1\] images, fewer than a batch of 2',
        ),
        ({'train_cfg.checkpoint_interval': -1}, ValueError, 'checkpoint_interval is -1'),
        ({'train_cfg.method': {'type': 'mmforget.Nope'}}, ValueError, "'Nope'.*'GSLoRA'"),
        ({'train_cfg.method.bound': -1}, ValueError, 'bound=-1'),
        ({'custom_hooks': [HOOK, HOOK]}, ValueError, 'both name the layer'),
        ({'custom_hooks': []}, RuntimeError, 'holds no hook'),
        ({'custom_hooks': [{**HOOK, 'targets': 'fnn'}]}, ValueError, "'fnn'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_clear_errors(make_runner, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        make_runner(tmp_path, **overrides, **NO_VALIDATION).train()
    assert not (tmp_path / 'task_1.pth').exists()


def test_a_list_of_forget_weights_must_fit_the_tasks(make_runner, tmp_path):
    runner = make_runner(
        tmp_path,
        **NO_VALIDATION,
        **{
            'train_cfg.max_steps': 1,
            'train_cfg.method': {'type': 'mmforget.GSLoRA', 'forget_weight': [0.1]},
        },
    )
    runner.train()  # One number in a list holds for all tasks.


def test_a_broken_loss_stops_before_it_reaches_the_weights(make_runner, tmp_path, monkeypatch):
    """FloatingPointError names the terms; the last checkpoint stays as it was, and finite."""
    honest, calls = GSLoRA.losses, []

    def third_is_broken(self, forget, retain):
        calls.append(None)
        losses = honest(self, forget, retain)
        if len(calls) == 3:
            losses['loss_retain_cls'] = losses['loss_retain_cls'] * float('nan')
        return losses

    monkeypatch.setattr(GSLoRA, 'losses', third_is_broken)
    snapshots = {}

    class Keep(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            snapshots[batch_idx] = (tmp_path / 'resume.pth').read_bytes()

    runner = make_runner(tmp_path, Keep(), **NO_VALIDATION, **{'train_cfg.checkpoint_interval': 1})
    with pytest.raises(FloatingPointError, match='task_1, step 2.*loss_retain_cls=nan'):
        runner.train()
    assert (tmp_path / 'resume.pth').read_bytes() == snapshots[2]
    checkpoint = torch.load(tmp_path / 'resume.pth', weights_only=True)
    assert checkpoint['meta']['mmforget']['task_step'] == 2
    assert all(v.isfinite().all() for v in checkpoint['state_dict'].values())
    assert all(p.isfinite().all() for p in runner.model.parameters())
    assert not (tmp_path / 'task_1.pth').exists()
