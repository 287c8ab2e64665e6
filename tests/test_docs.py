"""README and docs: commands exist, Python compiles, worked examples run."""

import ast
import inspect
import itertools
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmforget.engine import GroupSparseLoRAHook
from mmforget.methods.gs_lora import GSLoRA
from mmforget.registry import HOOKS as OUR_HOOKS
from mmforget.registry import METHODS
from mmforget.structures import StreamSampling
from mmforget.trainable.sparsity import SPARSITIES, build_sparsity

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md')),
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').rglob('README.md')),
]
FENCE = re.compile(r'^```([^\n]*)\n(.*?)^```', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self):
        return f'{self.page.relative_to(ROOT)}:{self.text.strip().splitlines()[0][:40]}'


@dataclass(frozen=True)
class Command:
    """A command line that a page names."""

    page: Path
    text: str

    @property
    def words(self):
        return shlex.split(self.text.split('  #')[0])

    def __str__(self):
        return f'{self.page.relative_to(ROOT)}:{self.text[:60]}'


def blocks_of(page):
    return [Block(page, info.strip(), text) for info, text in FENCE.findall(page.read_text())]


def commands_of(page):
    """Lines of fenced and indented blocks, and inline code, that begin as a command of ours."""
    text = page.read_text()
    fenced = '\n'.join(block for _, block in FENCE.findall(text)).replace('\\\n', ' ')
    prose = FENCE.sub('', text)
    indented = [line[4:] for line in prose.splitlines() if line.startswith('    ')]
    inline = re.findall(r'`([^`\n]+)`', prose)
    candidates = [*fenced.splitlines(), *indented, *inline]
    ours = re.compile(r'(?:\w+=\S+ )*(?:make [\w-]+|python tools/|tools/\S+\.sh )')
    return [Command(page, text.strip()) for text in candidates if ours.match(text.strip())]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))
SCRIPTS = sorted({c.words[1] for c in COMMANDS if c.words[0] == 'python'})
PYTHON = [block for block in BLOCKS if block.language == 'python']
SHELL = [page for page in PAGES if any(block.language == 'bash' for block in blocks_of(page))]


def test_there_is_something_to_test():
    assert len(COMMANDS) > 8 and len(PYTHON) > 10 and len(SHELL) > 3
    assert {block.language for block in BLOCKS} <= {'bash', 'python', 'yaml'}
    assert {'tools/demo.py', 'tools/train.py', 'tools/test.py'} <= set(SCRIPTS)


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_command_exists(command):
    words = [word for word in command.words if not re.fullmatch(r'[A-Z_]+=\S+', word)]
    if words[0] == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        named = [word for word in words[1:] if '=' not in word]
        assert named and set(named) <= set(targets)
    else:
        assert (ROOT / words[words[0] == 'python']).is_file()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configs_that_are_named_exist(page):
    for name in re.findall(r'\bconfigs/[\w./-]+\.(?:py|md)', page.read_text()):
        assert (ROOT / name).is_file(), name


def anchors(page):
    """GitHub's: lower case, punctuation dropped, spaces to hyphens."""
    titles = re.findall(r'^#+ (.+)$', FENCE.sub('', page.read_text()), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if link.startswith('http'):
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize('block', PYTHON, ids=str)
def test_python_compiles(block):
    compile(block.text, str(block.page), 'exec')


# What others' packages say; everything else that the FAQ quotes is ours.
OF_OTHERS = {
    "ModuleNotFoundError: No module named 'pkg_resources'",
    "ModuleNotFoundError: No module named 'mmcv._ext'",
    'undefined symbol: _ZN3c10...',
    'import mmcv.ops',
    'AssertionError: MMCV==2.2.0 is used but incompatible',
    'Weights only load failed',
    'HistoryBuffer',
    'tools/test.py',
    'implementation for device cuda:0 not found',
    "not implemented for 'BFloat16'",
    'please install fairscale',
}


def test_errors_that_the_faq_quotes_are_raised():
    """A heading quotes part of a message; a message that was reworded must be reworded there."""
    sources = [*(ROOT / 'mmforget').rglob('*.py'), ROOT / 'tools' / 'train.py']
    texts = [
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    faq = (ROOT / 'docs' / 'faq.md').read_text()
    quoted = re.findall(r'`([^`]+)`', '\n'.join(re.findall(r'^### (.+)$', faq, re.MULTILINE)))
    ours = [text for text in quoted if text not in OF_OTHERS and not text.startswith('mim ')]
    assert len(ours) > 5
    assert not [quote for quote in ours if not any(quote in text for text in texts)]


def table_of(page, header):
    """The first cells of the rows of the first table whose header begins like this."""
    text = (ROOT / 'docs' / page).read_text()
    rows = text[text.index(f'| {header}') :].split('\n\n')[0].splitlines()[2:]
    return [row.split(' | ')[0].strip('| ') for row in rows]


def names_of(page, header):
    return {name for cell in table_of(page, header) for name in re.findall(r'`(\w+)`', cell)}


def test_argument_tables_are_complete():
    def of(function):
        return set(inspect.signature(function).parameters) - {'self'}

    assert names_of('method.md', 'argument') == of(GSLoRA.__init__)
    assert names_of('scenario.md', 'key') == {field.name for field in fields(StreamSampling)}
    assert names_of('trainable_part.md', 'argument') == of(GroupSparseLoRAHook.__init__)


def test_sparsity_table_is_complete_and_builds():
    cells = [cell.strip('`') for cell in table_of('trainable_part.md', '`sparsity=`')]
    configs = [
        eval(cell.replace('strength=,', 'strength=1.0,')) for cell in cells if 'dict(' in cell
    ]
    assert {config['type'] for config in configs} == set(SPARSITIES)
    for config in configs:
        build_sparsity(config)


# The worked examples.


class Record(Hook):
    """Keeps what a run logs."""

    def __init__(self):
        self.logs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logs.append({name: float(value) for name, value in outputs.items()})


@pytest.fixture
def train_example(tiny_data, tiny_base, plain_dumps, tmp_path, monkeypatch):
    """Trains the tiny detector, a user's module and config lines on top; returns log and model."""
    from mmforget.testing import tiny_config

    numbers = itertools.count()

    def train(module, source, lines, **overrides):
        (tmp_path / f'{module}.py').write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        overrides.setdefault('load_from', str(tiny_base))
        overrides['train_cfg.scenario.tasks'] = [['bag', 'dress']]
        for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            overrides[key] = None
        work_dir = tmp_path / f'run_{next(numbers)}'
        tiny_config(tiny_data, work_dir, **overrides).dump(tmp_path / 'tiny.py')
        (tmp_path / 'mine.py').write_text(f"_base_ = ['tiny.py']\n{lines}")
        config = Config.fromfile(tmp_path / 'mine.py')
        config.experiment_name = work_dir.name
        runner, record = Runner.from_cfg(config), Record()
        runner.register_hook(record)
        runner.train()
        return record.logs, runner

    yield train
    for name in ('suppression', 'last_layer', 'announce'):
        sys.modules.pop(name, None)
    METHODS.module_dict.pop('Suppression', None)
    OUR_HOOKS.module_dict.pop('LastLayerHook', None)
    HOOKS.module_dict.pop('AnnounceTasks', None)


def test_add_a_method_runs_as_written(train_example):
    """The example's 30 lines and its config."""
    source, lines = (b.text for b in PYTHON if b.page.name == 'add_a_method.md')
    assert len(source.splitlines()) <= 40
    logs, runner = train_example('suppression', source, lines)
    assert type(runner.train_loop).__name__ == 'ContinualForgettingLoop'
    expected = {'loss', 'loss_retain_cls', 'loss_retain_bbox', 'loss_retain_iou'}
    for log in logs:
        assert expected | {'loss_forget', 'forget_score'} == set(log)
        parts = sum(value for name, value in log.items() if name.startswith('loss_'))
        assert log['loss'] == pytest.approx(parts, rel=1e-5) and log['loss_forget'] > 0


@pytest.mark.slow
def test_the_added_method_forgets(tmp_path, monkeypatch):
    """On the shipped detector the score of forgotten objects falls by more than half."""
    source, lines = (b.text for b in PYTHON if b.page.name == 'add_a_method.md')
    (tmp_path / 'suppression.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('MMFORGET_DATA', os.environ.get('MMFORGET_DATA', str(ROOT / 'data')))
    base = 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py'
    (tmp_path / 'mine.py').write_text(f'_base_ = [{str(ROOT / base)!r}]\n{lines}')
    config = Config.fromfile(tmp_path / 'mine.py')
    config.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'run'),
            'experiment_name': 'suppression_on_garments',
            'train_cfg.max_steps': 20,
            'train_cfg.scenario.tasks': [['bag', 'sneaker']],
        }
    )
    config.custom_hooks[0].sparsity = dict(type='ChosenGroups', groups=['decoder.layers.2'])
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        config[key] = None
    runner, record = Runner.from_cfg(config), Record()
    runner.register_hook(record)
    runner.train()
    scores = [log['forget_score'] for log in record.logs]
    assert sum(scores[-3:]) < 0.5 * sum(scores[:3]) and scores[0] > 0.2


def test_own_trainable_part_runs_as_written(train_example):
    """The last class layer moves, nothing else does."""
    import torch

    (source,) = (
        b.text for b in PYTHON if b.page.name == 'trainable_part.md' and 'LastLayer(' in b.text
    )
    lines = (
        "custom_imports = dict(imports=['mmforget', 'last_layer'])\n"
        "custom_hooks = [dict(type='mmforget.LastLayerHook')]\n"
    )
    _, runner = train_example('last_layer', source, lines)
    before = torch.load(runner._load_from, weights_only=True)['state_dict']
    after = torch.load(Path(runner.work_dir) / 'task_1.pth', weights_only=True)['state_dict']
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    last = {name for name in before if re.match(r'bbox_head\.cls_branches\.1\.', name)}
    assert moved and moved == last


def test_task_hook_runs_as_written(train_example):
    (source,) = (b.text for b in PYTHON if 'AnnounceTasks' in b.text)
    lines = (
        "custom_imports = dict(imports=['mmforget', 'announce'])\n"
        "custom_hooks = [dict(type='mmforget.GroupSparseLoRAHook', rank=2),\n"
        "                dict(type='AnnounceTasks')]\n"
    )
    _, runner = train_example('announce', source, lines, log_level='INFO')
    (log,) = Path(runner.work_dir).rglob('*.log')
    assert 'task_1 begins: bag, dress' in log.read_text()


def test_checkpoint_of_mmengine_is_saved_as_plain_data_as_written(tmp_path, monkeypatch):
    """The FAQ's lines on a file like those of mmengine's CheckpointHook."""
    import pickle

    import torch
    from mmengine.logging import HistoryBuffer

    (source,) = (b.text for b in PYTHON if 'epoch_12_plain.pth' in b.text)
    monkeypatch.chdir(tmp_path)
    weights = {'layer.weight': torch.arange(4.0)}
    hub = {'log_scalars': {'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}}
    meta = {'epoch': 12, 'dataset_meta': {'classes': ('bag', 'dress')}}
    torch.save({'meta': meta, 'state_dict': weights, 'message_hub': hub}, 'epoch_12.pth')
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load('epoch_12.pth', weights_only=True)
    exec(compile(source, 'faq.md', 'exec'), {})
    plain = torch.load('epoch_12_plain.pth', weights_only=True)
    assert torch.equal(plain['state_dict']['layer.weight'], weights['layer.weight'])
    assert plain['meta']['dataset_meta'] == meta['dataset_meta']


# Every command line is run, here or elsewhere.

BENCHMARK = ('tests/benchmarks/test_benchmark_tool.py', "'analysis_tools' / 'benchmark.py'")
COMPARISON = 'tests/test_comparison.py'
COCO = (
    'tests/test_coco_protocol.py',
    "'configs/coco/{method}_deformable-detr_r50_30e_coco-7x10-fewshot.py'",
)
# They fetch gigabytes from others.
FETCHING = {
    'mkdir -p data/coco && cd data/coco',
    'for name in train2017 val2017; do wget http://images.cocodataset.org/zips/$name.zip && '
    'unzip -q $name.zip; done',
    'wget http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
    'unzip -q annotations_trainval2017.zip && cd ../..',
    'mim download mmdet --config deformable-detr_r50_16xb2-50e_coco --dest checkpoints',
}
SIX_METHODS = (
    'configs/garments/gs-lora{,-plus-plus,-distilled}_*_80s_garments-continual.py '
    'configs/garments/{gradient-ascent,scrub,ewc}_*_80s_garments-continual.py'
)
# A command that is not run here -> the file that runs it, and how it stands there.
ELSEWHERE = {
    # What it calls; the target itself takes minutes.
    'make demo': ('tests/test_wheel.py', "'-m', 'mmforget', 'demo'"),
    'make test': ('.ci/run', 'make test\n'),
    'pip install .': ('tests/test_wheel.py', "pip('install',"),
    'pip install -e .': ('tools/setup_environment.sh', '-e .'),
    'pip install mmforget-0.1.0-py3-none-any.whl': ('tests/test_wheel.py', "pip('install',"),
    'pip wheel --no-deps --no-build-isolation --wheel-dir dist .': (
        'tests/test_wheel.py',
        "pip('wheel', *offline, '--no-build-isolation', '--wheel-dir'",
    ),
    'python <mmdet>/tools/train.py that_config.py': (
        'tests/test_front_doors.py',
        "MIM / 'tools' / 'train.py',\n        'forget_coco.py'",
    ),
    'python tools/demo.py --no-controls': ('tests/test_wheel.py', "'demo', '--no-controls'"),
    'python -m mmforget demo': ('tests/test_wheel.py', "'-m', 'mmforget', 'demo'"),
    'python -m pytest tests/test_contract.py': ('.ci/run', 'make test\n'),
    # They take hours; what they call is run level by level.
    'python tools/analysis_tools/benchmark.py --page docs/benchmarks.md': BENCHMARK,
    'python tools/analysis_tools/benchmark.py --levels garments validation --keep --page '
    'docs/benchmarks.md': BENCHMARK,
    # It builds every family; each has a slow test of its own.
    'python tools/analysis_tools/detector_table.py --page docs/detectors.md': (
        'tests/testing/test_families.py',
        'row_text(row) == page_rows[family]',
    ),
    # It needs what the demo leaves.
    'python tools/attack.py configs/garments/deformable-detr_mobilenetv2_3k_garments.py '
    'work_dirs/demo/gs-lora/task_1.pth --attack relearn --classes bag sneaker': (
        'tests/attacks/test_relearn.py',
        "'--attack', 'relearn'",
    ),
    # They want COCO; what they train is trained there on a data set in its form.
    'python tools/train.py configs/coco/gs-lora_deformable-detr_r50_30e_coco-7x10-fewshot.py': COCO,
    'python tools/train.py configs/coco/gs-lora_deformable-detr_r50_30e_coco-7x10-fewshot.py '
    '--auto-scale-lr --cfg-options train_dataloader.batch_size=4': COCO,
    # They take hours; what they call is run there on a tiny detector.
    'python tools/analysis_tools/results_table.py --page docs/results.md': (
        'tests/test_results_page.py',
        "['results_table.py', '--page'",
    ),
    'python tools/analysis_tools/results_table.py --page docs/results.md --check': (
        'tests/test_results_page.py',
        "'--check'",
    ),
    'python tools/analysis_tools/results_table.py '
    'work_dirs/comparison/deformable-detr_mobilenetv2_garments-continual': (
        COMPARISON,
        "'results_table.py', compared",
    ),
    'python tools/analysis_tools/tune.py configs/garments/*_80s_garments-continual.py --tasks 1 '
    '--trials 6': (COMPARISON, "'tune.py', *arguments, '--trials'"),
    'python tools/analysis_tools/plot_methods.py '
    'docs/results/deformable-detr_mobilenetv2_garments-continual '
    '--out-dir docs/images/results': (COMPARISON, "'plot_methods.py', compared"),
    'python tools/analysis_tools/plot_methods.py '
    'work_dirs/comparison/deformable-detr_mobilenetv2_garments-single-30_val '
    '--out-dir docs/images/results': (COMPARISON, "'plot_methods.py', compared"),
    **{
        f'python tools/analysis_tools/compare_methods.py {arguments}': (
            COMPARISON,
            "'compare_methods.py',",
        )
        for arguments in (
            'configs/garments/oracle_*_garments-continual.py',
            'configs/garments/*_80s_garments-continual.py',
            f'{SIX_METHODS} --seeds 43 44',
            f'{SIX_METHODS} --scenario configs/_base_/scenarios/garments_fewshot.py '
            '--seeds 42 43 44',
            'configs/garments/ret{rain,ain-only}_*_80s_garments-continual.py '
            '--scenario configs/_base_/scenarios/garments_fewshot.py',
            'configs/ablations/distillation.py --split val',
            'configs/garments/oracle_deformable-detr_mobilenetv2_3k_garments-single-30.py '
            '--split val',
            'configs/garments/ret*_80s_garments-continual.py '
            '--scenario configs/_base_/scenarios/garments_single-30.py --split val',
            'configs/recognition/*_vit_*_garment-sprites-4x2.py',
            'configs/garments/{gs-lora,gs-lora-plus-plus,gs-lora-distilled,gradient-ascent}_*_80s_'
            'garments-continual.py '
            'configs/garments/{scrub,ewc,fine-tuning,background-labels}_*_80s_'
            'garments-continual.py --scenario configs/_base_/scenarios/garments_single-30.py '
            '--split val --curves-every 20',
        )
    },
    'for name in rank alpha beta bound targets grouping images sparsity sparsity_path matching; do '
    'python tools/analysis_tools/compare_methods.py configs/ablations/$name.py '
    '--scenario configs/_base_/scenarios/garments_single-30.py --split val; done': (
        COMPARISON,
        "'compare_methods.py',",
    ),
    # It compiles for a quarter of an hour.
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir '
    'mmcv==2.1.0': ('tools/setup_environment.sh', '--no-build-isolation'),
}
# What a reader puts in.
PLACEHOLDERS = {
    'CONFIG': 'configs/garments/deformable-detr_mobilenetv2_3k_garments.py',
    'CHECKPOINT': 'mmforget://deformable-detr_mobilenetv2_garments',
    'iter_3000.pth': 'iter_2.pth',
    'iter_2000.pth': 'iter_2.pth',
}
# The commands as they stand, but for fewer steps and images.
SHORTER = {
    # Before 'mim', which is in 'mimdet', too.
    'k_garments.py': '--cfg-options train_cfg.max_iters=2 train_dataloader.batch_size=2',
    'mim': '--cfg-options train_cfg.max_steps=2 train_cfg.scenario.tasks=[[bag]] '
    'custom_hooks.0.sparsity=None val_dataloader.dataset.indices=20',
    'forget': '--steps 4 --cfg-options val_dataloader.dataset.indices=20',
    'test': '--cfg-options test_dataloader.dataset.indices=20',
    'garment-sprites-4tasks.py': '--cfg-options train_cfg.max_steps=2 '
    'load_from=work_dirs/vit_2k_garment-sprites/iter_2.pth custom_hooks.0.sparsity=None',
    'demo': '--cfg-options load_from=work_dirs/fcos_mobilenetv2_2k_garments/iter_2.pth '
    'train_cfg.max_steps=2 custom_hooks.0.sparsity=None val_dataloader.dataset.indices=20',
    '3tasks.py': '--cfg-options val_dataloader.dataset.indices=20',
    'vit_2k_garment-sprites.py': '--cfg-options train_cfg.max_iters=2 train_cfg.val_begin=2',
}


def lines_of(page):
    """The lines of all shell blocks, continued ones joined, without comments."""
    text = '\n'.join(block.text for block in blocks_of(page) if block.language == 'bash')
    lines = re.sub(r' *\\\n\s*', ' ', text).splitlines()
    return [line for line in (line.split('  #')[0].strip() for line in lines) if line]


def shorter(line):
    """The command with a reader's own words put in, and options that make it short."""
    for word, own in PLACEHOLDERS.items():
        line = line.replace(word, own)
    words = line.split()
    tool = words[3] if words[1:3] == ['-m', 'mmforget'] else Path(words[1]).stem
    tool = 'mim' if 'mim.cli' in line else tool
    for name, options in SHORTER.items():
        if name == tool or (tool in ('train', 'demo') and name in line):
            flag = '--cfg-options'
            # The flag is the last one of a line, and stands once.
            return f'{line} {options.replace(f"{flag} ", "") if flag in line else options}'
    return line


def test_options_of_the_command_are_named_as_they_are():
    rows = table_of('../README.md', 'option')
    named = {option for row in rows for option in re.findall(r'--[a-z-]+', row)}
    script = (ROOT / 'tools' / 'forget.py').read_text()
    assert named | {'--out'} == set(re.findall(r"'(--[a-z-]+)'", script))


def test_commands_that_are_run_elsewhere():
    shown = {line for page in PAGES for line in lines_of(page)}
    assert set(ELSEWHERE) | FETCHING <= shown
    for command, (path, evidence) in ELSEWHERE.items():
        assert evidence in (ROOT / path).read_text(), command


@pytest.fixture
def shell(tmp_path, quick_start):
    """A folder like a clone, in which ``python`` is the one of this test; runs lines of bash."""
    for name in ('tools', 'configs', 'Makefile'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'mmforget' / 'models' / 'data').mkdir(parents=True)  # Where weights go.
    (tmp_path / 'bin').mkdir()
    # What `pip install` names must be there already: nothing is changed in the environment.
    for name, options in (('python', '-W ignore'), ('pip', '-m pip --no-input')):
        script = tmp_path / 'bin' / name
        offline = 'case "$*" in *--target*) ;; *) export PIP_NO_INDEX=1 ;; esac\n'
        offline = offline if name == 'pip' else ''
        script.write_text(
            f'#!/bin/sh\n{offline}exec {shlex.quote(sys.executable)} {options} "$@"\n'
        )
        script.chmod(0o755)

    def run(text):
        environment = {**os.environ, 'PATH': f'{tmp_path}/bin{os.pathsep}{os.environ["PATH"]}'}
        environment |= {'PYTHONPATH': f'{ROOT}{os.pathsep}{quick_start}', 'PYTHONSAFEPATH': '1'}
        environment['MMFORGET_CACHE'] = str(tmp_path / 'cache')
        environment.setdefault('MMFORGET_DATA', str(ROOT / 'data'))
        result = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', text],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if 'Could not find a version that satisfies' in result.stdout:
            pytest.skip('PyPI cannot be reached')
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout

    return run


@pytest.mark.slow
def test_make_targets_can_be_made(shell):
    """``make help`` for real; of the others what would be run."""
    assert 'make demo' in shell('make help')
    for name in sorted({c.words[1] for c in COMMANDS if c.words[0] == 'make'} - {'help'}):
        assert shell(f'make -n {name}').strip()


@pytest.mark.slow
@pytest.mark.parametrize('page', SHELL, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(page, shell):
    """All commands of a page, in their order and in one folder."""
    lines = [shorter(line) for line in lines_of(page) if line not in {*ELSEWHERE, *FETCHING}]
    shell('set -x\n' + '\n'.join(lines))


def test_costs_in_the_readme_are_those_of_the_benchmark():
    """Both figures of a row stand in one table of the benchmark's page; the ratio is theirs."""
    readme, page = (ROOT / 'README.md').read_text(), (ROOT / 'docs/benchmarks.md').read_text()
    table = readme.partition('<!-- costs: begin -->')[2].partition('<!-- costs: end -->')[0]
    rows = [line.strip('| ').split(' | ')[1:] for line in table.splitlines() if '| 0.' in line]
    cases = [set(re.split(r'\s*\|\s*', text)) for text in page.split('\n### ')]
    assert len(rows) >= 7
    for recipe, ours, ratio in rows:
        assert any({recipe, ours} <= figures for figures in cases), (recipe, ours)
        spent, saved = (float(figure.replace(',', '')) for figure in (recipe, ours))
        assert float(ratio) == pytest.approx(saved / spent, rel=2e-3)
