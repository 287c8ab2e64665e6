"""Every config of the repository, and an ordinary user's: they parse, build and fit together."""

import inspect
import itertools
import re
import runpy
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmforget.engine import ContinualForgettingLoop, TrainableHook
from mmforget.engine.loops import build_method
from mmforget.engine.schedules import fit_schedulers
from mmforget.evaluation import ForgettingMetric
from mmforget.models.checkpoints import SCHEME, find_weights
from mmforget.registry import METRICS
from mmforget.structures import ForgettingScenario, StreamSampling

FOLDER = Path(__file__).parents[1] / 'configs'
FILES = sorted(
    p for p in FOLDER.rglob('*.py') if not {'_base_', 'ablations'} & {*p.relative_to(FOLDER).parts}
)
LOOP = 'mmforget.ContinualForgettingLoop'


def names(path):
    return str(path.relative_to(FOLDER))


@pytest.fixture(scope='module')
def configs():
    return {path: Config.fromfile(path) for path in FILES}


@pytest.fixture(params=FILES, ids=names)
def config(request, configs):
    register_all_modules(init_default_scope=True)
    return configs[request.param]


@pytest.fixture
def forgetting(config):
    if config.train_cfg.type != LOOP:
        pytest.skip('trains a detector, forgets nothing')
    return config


def test_there_are_configs():
    assert FILES


@pytest.mark.parametrize('path', FILES, ids=names)
def test_header_says_what_it_is_and_how_to_run_it(path):
    comments = []
    for line in path.read_text().splitlines():
        if not line.startswith('#'):
            break
        comments.append(line)
    assert len(comments) > 1 and not comments[0].startswith('#   ')
    commands = [line[1:].strip() for line in comments if line.startswith('#   ')]
    assert any(
        c.startswith('python ') and str(path.relative_to(FOLDER.parent)) in c for c in commands
    )
    for command in commands:
        if command.startswith('python '):
            assert (FOLDER.parent / command.split()[1]).is_file()


def label_map(config):
    """The garments; where the classes are folders of the user's, their names in the tasks."""
    from mmforget.datasets.garments_scenes import CLASSES

    kind = config.val_dataloader.dataset.type
    if 'Garment' in kind:
        return CLASSES
    if kind == 'CocoDataset':
        return CocoDataset.METAINFO['classes']
    return tuple(map(str, range(config.model.num_classes)))


@pytest.fixture(scope='module')
def built():
    """Models by their configs: many methods have one model."""
    return {}


def test_model_builds(config, built):
    """On the CPU, without weights: nothing is fetched before ``init_weights``."""
    model = built.setdefault(repr(config.model), None) or MODELS.build(config.model)
    built[repr(config.model)] = model
    owner = getattr(model, 'roi_head', model)
    assert getattr(owner, 'bbox_head', owner).num_classes == len(label_map(config))


def arguments_of(config):
    return {k: v for k, v in config.train_cfg.items() if k != 'type'}


def check_forgetting(config, classes):
    """The four parts of a forgetting config: loop, method, trainable part, metric."""
    arguments = arguments_of(config)
    inspect.signature(ContinualForgettingLoop).bind(None, None, **arguments)
    assert build_method(arguments['method'])
    scenario = ForgettingScenario.from_config(arguments['scenario'], classes)
    for stream in {'forget', 'retain'} & set(arguments['scenario']):
        StreamSampling(**arguments['scenario'][stream])
    hooks = [HOOKS.build(dict(hook)) for hook in config.custom_hooks]
    assert sum(isinstance(hook, TrainableHook) for hook in hooks) == 1
    for hook in hooks:
        if isinstance(hook, TrainableHook):
            hook.build()
    assert config.load_from
    for evaluator in (config.val_evaluator, config.get('test_evaluator', config.val_evaluator)):
        assert issubclass(METRICS.get(evaluator.type), ForgettingMetric)
    steps = arguments.get('max_steps', 2000)
    fitted = fit_schedulers(config.get('param_scheduler'), steps)
    assert all(f['end'] <= steps for f in fitted)
    return scenario


def test_forgetting_parts_build(forgetting):
    check_forgetting(forgetting, label_map(forgetting))


def test_weights_to_start_from_are_there(forgetting):
    if not forgetting.load_from.startswith(SCHEME):
        pytest.skip('starts from a file of the user')
    assert find_weights(forgetting.load_from.removeprefix(SCHEME)).stat().st_size < 10e6


METHODS_OF_DETECTORS = {
    *('gs-lora', 'gs-lora-plus-plus', 'gs-lora-trial', 'gs-lora-distilled', 'fine-tuning'),
    *('gradient-ascent',),
    *('random-labels', 'background-labels', 'l2', 'ewc', 'mas', 'lwf', 'der', 'der-plus-plus'),
    *('fdr', 'scrub', 'scrub-s', 'retain-only', 'retrain', 'oracle', 'random-drop'),
}


OF_DETECTORS_ONLY = {'background-labels'}


@pytest.mark.parametrize(
    ('folder', 'scenario', 'expected'),
    [
        ('garments', 'garments-continual', METHODS_OF_DETECTORS),
        ('coco', 'coco-7x10*', METHODS_OF_DETECTORS | {'gs-lora-authors'}),
        ('recognition', '*sprites-4x2', METHODS_OF_DETECTORS - OF_DETECTORS_ONLY | {'lirf'}),
    ],
)
def test_every_method_has_a_config(folder, scenario, expected):
    files = (FOLDER / folder).glob(f'*_{scenario}.py')
    assert {path.stem.split('_')[0] for path in files} == expected


def test_trainable_parts_fit_their_models(forgetting, built):
    key = repr(forgetting.model)
    model = built.get(key) or MODELS.build(forgetting.model)
    built[key] = model
    scenario = ForgettingScenario.from_config(forgetting.train_cfg.scenario, label_map(forgetting))
    for config in forgetting.custom_hooks:
        hook = HOOKS.build(dict(config))
        if isinstance(hook, TrainableHook):
            hook.build().check(model, scenario)


ABLATIONS = sorted((FOLDER / 'ablations').glob('*.py'))


@pytest.mark.parametrize('path', ABLATIONS, ids=lambda path: path.stem)
def test_ablations_build_and_differ(path):
    from mmforget.datasets.garments_scenes import CLASSES

    register_all_modules(init_default_scope=True)
    command = f'python tools/analysis_tools/compare_methods.py configs/ablations/{path.name}'
    assert path.read_text().splitlines()[1].startswith(f'#   {command} ')
    family = Config.fromfile(path)
    assert len(family.variants) > 2
    script = runpy.run_path(str(FOLDER.parent / 'tools/analysis_tools/compare_methods.py'))
    scenario = re.search(r'--scenario (\S+)', path.read_text())
    asked = script['scenario_of'](FOLDER.parent / scenario[1]) if scenario else None
    seen = []
    for config in script['runs_of'](path, asked).values():
        check_forgetting(config, CLASSES)
        assert asked is None or config.train_cfg.scenario.tasks == asked.tasks
        seen.append(config.to_dict())
    assert all(a != b for a, b in itertools.combinations(seen, 2))


SCENARIOS = sorted((FOLDER / '_base_' / 'scenarios').glob('*.py'))


@pytest.mark.parametrize('path', SCENARIOS, ids=lambda path: path.stem)
def test_scenarios_fit_their_label_maps(path):
    from mmforget.datasets.garments_scenes import CLASSES

    classes = CLASSES if path.stem.startswith('garment') else CocoDataset.METAINFO['classes']
    config = Config.fromfile(path)
    assert set(config) == {'scenario'}
    scenario = ForgettingScenario.from_config(config.scenario, classes)
    share = path.stem.rpartition('single-')[2]
    if share.isdigit():
        assert len(scenario.tasks[0].classes) == max(1, round(int(share) / 100 * len(classes)))
    for stream in ('forget', 'retain'):
        StreamSampling(**config.scenario[stream])


@pytest.mark.parametrize('setting', ['fewshot', '10percent'])
def test_the_authors_numbers(setting):
    """Spec A.3, B.6, B.7."""
    config = Config.fromfile(
        FOLDER / 'coco' / f'gs-lora_deformable-detr_r50_30e_coco-7x10-{setting}.py'
    )
    method, hook = config.train_cfg.method, config.custom_hooks[0]
    betas = {
        'fewshot': [0.15, 0.15, 0.35, 0.6, 0.15, 0.2, 0.2],
        '10percent': [0.015, 0.03, 0.14, 0.13, 0.13, 0.15, 0.15],
    }
    assert (method.forget_weight, method.bound) == (betas[setting], 15)
    assert (hook.rank, hook.sparsity, hook.get('alpha', 1.0)) == (8, 3e-4, 1.0)
    assert config.optim_wrapper.optimizer == dict(type='AdamW', lr=3e-4, weight_decay=1e-4)
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert (config.train_cfg.retain_epochs, config.param_scheduler) == (30, [])
    batch_size = {'fewshot': 32, '10percent': 16}[setting]
    assert config.train_dataloader.batch_size == batch_size
    assert config.auto_scale_lr.base_batch_size == batch_size
    sizes = {'fewshot': (32, None), '10percent': (None, 0.1)}[setting]
    for stream in ('forget', 'retain'):
        sampling = StreamSampling(**config.train_cfg.scenario[stream])
        assert (sampling.shots, sampling.ratio, sampling.authors_seed) == (*sizes, 123)


USERS = """
_base_ = ['mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py']
custom_imports = dict(imports=['mmforget'], allow_failed_imports=False)
load_from = '...the trained detector...'
scenario = dict(tasks=[['microwave', 'skateboard'], ['truck'], ['person', 'dog']])
train_cfg = dict(_delete_=True, type='mmforget.ContinualForgettingLoop', scenario=scenario, max_steps=2000,
                 method=dict(type='mmforget.GSLoRA', forget_weight=0.15, bound=15))
custom_hooks = [dict(type='mmforget.GroupSparseLoRAHook', rank=8, targets='ffn', group_by='block', sparsity=3e-4)]
val_evaluator = dict(type='mmforget.ForgettingCocoMetric')
test_evaluator = val_evaluator
"""  # noqa: E501


@pytest.fixture(scope='module')
def users(tmp_path_factory):
    """The example of the documentation: an ordinary mmdet config with a few lines on top."""
    path = tmp_path_factory.mktemp('users') / 'forget_coco.py'
    path.write_text(USERS)
    register_all_modules(init_default_scope=True)
    return Config.fromfile(path)


def test_an_ordinary_config(users):
    scenario = check_forgetting(users, CocoDataset.METAINFO['classes'])
    assert [len(task.retained) for task in scenario.tasks] == [78, 77, 75]
    # What CocoMetric was told is still known to the metric that took its place.
    assert users.val_evaluator.ann_file.endswith('instances_val2017.json')
    assert users.val_evaluator.metric == 'bbox'


def test_its_schedule_fits_the_budget(users):
    """The drop at epoch 40 of 50 is a drop at 80 % of the steps."""
    (fitted,) = fit_schedulers(users.param_scheduler, users.train_cfg.max_steps)
    assert fitted['type'] == 'MultiStepLR' and fitted['by_epoch'] is False
    assert fitted['milestones'] == [1600] and fitted['end'] == 2000


def test_its_model_gets_the_papers_parameters(users):
    """245,760 parameters in 12 groups, 0.617 % of 39,847,265 in the paper's implementation."""
    model = MODELS.build(users.model)
    (hook,) = [HOOKS.build(dict(h)) for h in users.custom_hooks]
    part = hook.build()
    scenario = ForgettingScenario.from_requests([['truck']], ('truck', 'dog'))
    part.inject(model, scenario.tasks[0], seed=0)
    assert sum(p.numel() for p in part.parameters()) == 245_760
    assert len(part.groups) == 12
