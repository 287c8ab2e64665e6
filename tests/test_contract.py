"""What every method owes, whoever wrote it: over the registry, through the real loop."""

import math
from inspect import signature

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmforget.adapters import LoRALinear
from mmforget.engine.loops import build_method
from mmforget.methods import ForgettingMethod, TaskContext
from mmforget.registry import METHODS
from mmforget.testing import tiny_classifier, tiny_recognition_config

METHODS.import_from_location()
NAMES = sorted(METHODS.module_dict)
# A detector gives no tokens halfway up, and a classifier knows no background.
OF_CLASSIFIERS = [name for name in NAMES if name != 'BackgroundLabels']
OF_DETECTORS = [name for name in NAMES if name != 'LIRF']
PARTS = {
    'lora': dict(type='mmforget.GroupSparseLoRAHook', rank=2),
    'whole': dict(type='mmforget.FullFineTuningHook', frozen=()),
    'heads frozen': dict(type='mmforget.FullFineTuningHook', frozen='heads'),
}
SLOW = pytest.mark.slow


def _case(name, part, kind, *marks):
    return pytest.param((name, part, kind), id=f'{name}-{part}-{kind}', marks=marks)


CASES = [
    *(_case(name, 'lora', 'detector') for name in OF_DETECTORS),
    *(_case(name, 'whole', 'detector', SLOW) for name in OF_DETECTORS),
    *(_case(name, 'heads frozen', 'detector', SLOW) for name in OF_DETECTORS),
    _case('LIRF', 'heads frozen', 'classifier'),
    *(_case(name, 'lora', 'classifier', SLOW) for name in OF_CLASSIFIERS),
    *(_case(name, 'whole', 'classifier', SLOW) for name in OF_CLASSIFIERS),
]
NOT_MEASURED = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


def _tensors(model):
    """Copies of all parameters and buffers, the adapters' matrices left out."""
    return {k: v.clone() for k, v in model.state_dict().items() if '.lora_' not in k}


class Watch(Hook):
    """Looks over the loop's shoulder during every task.

    Attributes:
        moved: Weights and statistics of the detector that are not as they were before the task.
        moved_adapters: After each step, whether any adapter has an effect.
        logs: After each step, the losses.
        modes: After each step, whether dropout and batch normalisation are awake.
    """

    def __init__(self):
        self.moved = set()
        self.moved_adapters = []
        self.logs = []
        self.modes = []

    def before_forgetting_task(self, runner, task):
        self.before = _tensors(runner.model)
        self.ups = [m.lora_B for m in runner.model.modules() if isinstance(m, LoRALinear)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        after = _tensors(runner.model)
        assert after.keys() == self.before.keys()
        self.moved |= {k for k, v in after.items() if not torch.equal(v, self.before[k])}
        self.moved_adapters.append(any(bool(up.any()) for up in self.ups))
        self.logs.append({k: float(v) for k, v in outputs.items()})
        modules = list(runner.model.modules())
        self.modes.append(
            {
                'dropout': any(m.training for m in modules if isinstance(m, nn.Dropout) and m.p),
                'batch_norm': any(m.training for m in modules if isinstance(m, nn.BatchNorm2d)),
            }
        )


@pytest.fixture(scope='module')
def classifier_file(tmp_path_factory):
    """Checkpoint of a tiny classifier, random."""
    pytest.importorskip('timm')
    from mmforget.registry import MODELS

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('classifier') / 'base.pth'
    torch.save({'state_dict': MODELS.build(tiny_classifier()).state_dict(), 'meta': {}}, path)
    return path


@pytest.fixture(scope='module')
def build_runner(make_runner, classifier_file):
    """A runner of a kind of model over two tasks of three steps, forgetting not measured."""

    def build(kind, work_dir, *hooks, **overrides):
        overrides = {'train_cfg.max_steps': 3, **NOT_MEASURED, **overrides}
        if kind == 'detector':
            return make_runner(work_dir, *hooks, **overrides)
        overrides = {'experiment_name': work_dir.name, **overrides}
        config = tiny_recognition_config(work_dir, classifier_file, **overrides)
        config.model.timm_args.proj_drop_rate = 0.1
        runner = Runner.from_cfg(config)
        for hook in hooks:
            runner.register_hook(hook, priority='VERY_LOW')
        return runner

    return build


def arguments(name, kind):
    """The method's own defaults; for a classifier no labels of background."""
    config = {'type': f'mmforget.{name}', '_delete_': True}
    if kind == 'classifier' and 'labels' in _taken(METHODS.get(name)):
        config['labels'] = 'random'
    return config


def _taken(cls):
    """Names of arguments, those that are handed on to the parent included."""
    own = signature(cls).parameters
    parent = cls.__mro__[1]
    return set(own) | (_taken(parent) if 'arguments' in own else set())


@pytest.fixture(scope='module', params=CASES)
def watched(request, build_runner, tmp_path_factory):
    """A run of two tasks with the method's default arguments."""
    name, part, kind = request.param
    work_dir = tmp_path_factory.mktemp(name)
    watch = Watch()
    config = {'train_cfg.method': arguments(name, kind), 'custom_hooks': [PARTS[part]]}
    runner = build_runner(kind, work_dir, watch, **config)
    watch.keys = set(runner.model.state_dict())
    runner.train()
    watch.runner, watch.work_dir, watch.part, watch.kind = runner, work_dir, part, kind
    return watch


def test_registry_is_not_empty():
    assert 'GSLoRA' in NAMES
    assert all(issubclass(METHODS.get(name), ForgettingMethod) for name in NAMES)


def test_only_the_trainable_part_moves(watched):
    """No other parameter and no buffer changes by a bit, BatchNorm statistics included."""
    assert len(watched.logs) == 6
    if watched.part == 'lora':
        assert watched.moved == set() and any(watched.moved_adapters)
        return
    model = watched.runner.model
    free = {
        name
        for name, _ in model.named_parameters()
        if watched.part == 'whole' or not name.startswith(('bbox_head.', 'head.'))
    }
    assert watched.moved and watched.moved <= free
    if watched.kind == 'detector':
        assert any(key.endswith('running_mean') for key in watched.before)


def test_dropout_is_awake_and_batch_norm_is_not(watched):
    assert all(modes == {'dropout': True, 'batch_norm': False} for modes in watched.modes)


def test_losses_are_finite_and_add_up(watched):
    for log in watched.logs:
        assert all(math.isfinite(value) for value in log.values())
        parts = [value for name, value in log.items() if 'loss' in name and name != 'loss']
        assert parts and log['loss'] == pytest.approx(sum(parts), rel=1e-5)


def test_the_model_ends_as_it_began_but_for_its_weights(watched):
    """Same keys as before and no adapter layer; of LoRA only FFN weights differ."""
    model = watched.runner.model
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert set(model.state_dict()) == watched.keys
    base = torch.load(watched.runner._load_from, weights_only=True)['state_dict']
    file = torch.load(watched.work_dir / 'task_2.pth', weights_only=True)['state_dict']
    assert file.keys() == base.keys()
    differing = {key for key in base if not torch.equal(base[key], file[key])}
    assert differing
    if watched.part == 'lora':
        inside = '.ffn.layers.' if watched.kind == 'detector' else '.mlp.'
        assert all(inside in key and 'weight' in key for key in differing)
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


@pytest.mark.parametrize(
    ('name', 'kind', 'error', 'said'),
    [
        ('LIRF', 'detector', RuntimeError, 'halfway.*DeformableDETR'),
        ('BackgroundLabels', 'classifier', TypeError, 'ViTClassifier knows no background'),
    ],
)
def test_elsewhere_a_method_refuses(name, kind, error, said, build_runner, tmp_path):
    config = {'train_cfg.method': arguments(name, 'detector')}
    with pytest.raises(error, match=said):
        build_runner(kind, tmp_path, **config).train()


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b
