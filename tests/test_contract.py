"""What every method owes, whoever wrote it: over the registry, through the real loop."""

import math

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from mmforget.adapters import LoRALinear
from mmforget.engine.loops import build_method
from mmforget.methods import ForgettingMethod, TaskContext
from mmforget.registry import METHODS

METHODS.import_from_location()
NAMES = sorted(METHODS.module_dict)


def _tensors(model):
    """Copies of all parameters and buffers, the adapters' matrices left out."""
    return {k: v.clone() for k, v in model.state_dict().items() if '.lora_' not in k}


class Watch(Hook):
    """Looks over the loop's shoulder during every task."""

    def __init__(self):
        self.frozen_before = {}
        self.moved_frozen = []
        self.moved_adapters = []
        self.logs = []
        self.modes = []
        self.round_trips = []

    def before_forgetting_task(self, runner, task):
        self.before = _tensors(runner.model)
        self.names = {n for n, m in runner.model.named_modules() if isinstance(m, LoRALinear)}
        self.ups = {n: runner.model.get_submodule(n).lora_B for n in self.names}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        after = _tensors(runner.model)
        assert after.keys() == self.before.keys()
        self.moved_frozen += [k for k, v in after.items() if not torch.equal(v, self.before[k])]
        self.moved_adapters.append(any(bool(up.any()) for up in self.ups.values()))
        self.logs.append({k: float(v) for k, v in outputs.items()})
        modules = list(runner.model.modules())
        self.modes.append(
            {
                'dropout': any(m.training for m in modules if isinstance(m, nn.Dropout) and m.p),
                'batch_norm': any(m.training for m in modules if isinstance(m, nn.BatchNorm2d)),
            }
        )


@pytest.fixture(scope='module', params=NAMES)
def watched(request, make_runner, tmp_path_factory):
    """A run of two tasks with the method's default arguments."""
    work_dir = tmp_path_factory.mktemp(request.param)
    watch = Watch()
    runner = make_runner(
        work_dir,
        watch,
        **{
            'train_cfg.method': {'type': f'mmforget.{request.param}'},
            'train_cfg.max_steps': 3,
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
        },
    )
    keys = set(runner.model.state_dict())
    assert any(m.training for m in runner.model.modules() if isinstance(m, nn.BatchNorm2d))
    runner.train()
    watch.keys, watch.runner, watch.work_dir = keys, runner, work_dir
    return watch


def test_registry_is_not_empty():
    assert 'GSLoRA' in NAMES
    assert all(issubclass(METHODS.get(name), ForgettingMethod) for name in NAMES)


def test_only_the_trainable_part_moves(watched):
    """No other parameter and no buffer changes by a bit, BatchNorm statistics included."""
    assert len(watched.logs) == 6
    assert any(key.endswith('running_mean') for key in watched.before)
    assert watched.moved_frozen == []
    assert any(watched.moved_adapters)


def test_dropout_is_awake_and_batch_norm_is_not(watched):
    assert all(modes == {'dropout': True, 'batch_norm': False} for modes in watched.modes)


def test_losses_are_finite_and_add_up(watched):
    for log in watched.logs:
        assert all(math.isfinite(value) for value in log.values())
        parts = [value for name, value in log.items() if 'loss' in name and name != 'loss']
        assert parts and log['loss'] == pytest.approx(sum(parts), rel=1e-5)


def test_the_model_ends_as_a_plain_detector(watched):
    """Same keys as before, no adapter layer, only FFN weights differ from the loaded ones."""
    model = watched.runner.model
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert set(model.state_dict()) == watched.keys
    base = torch.load(watched.runner._load_from, weights_only=True)['state_dict']
    file = torch.load(watched.work_dir / 'task_2.pth', weights_only=True)['state_dict']
    assert file.keys() == base.keys()
    differing = {key for key in base if not torch.equal(base[key], file[key])}
    assert differing and all('.ffn.layers.' in key and 'weight' in key for key in differing)
    for key, value in model.state_dict().items():
        assert torch.equal(value, file[key])


def test_state_survives_a_kill(watched, tmp_path):
    """The state after two tasks is loadable with torch's check on; a fresh method takes it up."""
    loop = watched.runner.train_loop
    method, task = loop.method, loop.scenario.tasks[-1]
    torch.save(method.state_dict(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    fresh = build_method(loop.method_config)
    fresh.before_task(task, TaskContext(watched.runner.model, loop.scenario.classes, dict))
    fresh.load_state_dict(state)
    assert _equal(fresh.state_dict(), method.state_dict())


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b
