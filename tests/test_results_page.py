"""The results page says what the results files say, and these are of the configs as they stand."""

import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmforget.engine.results import FILE_NAME, read_results

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / 'docs' / 'results'
PAGE = ROOT / 'docs' / 'results.md'
FOLDERS = {
    'deformable-detr_mobilenetv2_garments-continual': (
        'garments',
        'deformable-detr_mobilenetv2_*_garments-continual',
    ),
    'vit_garment-sprites-4x2': ('recognition', 'vit_*_garment-sprites-4x2'),
}
# Folder -> the scenario that replaces the configs' own, and where it is measured.
OTHER_SCENARIOS = {
    'deformable-detr_mobilenetv2_garments-fewshot': ('garments_fewshot', 'test'),
    'deformable-detr_mobilenetv2_garments-single-30_val': ('garments_single-30', 'val'),
}
SINGLE = 'garments_single-30'
ABLATIONS = sorted(path.name for path in KEPT.glob('ablation_*'))


@pytest.mark.parametrize('page', ['README.md', 'docs/results.md'])
def test_tables_are_those_of_the_results_files(page, monkeypatch):
    arguments = ['results_table.py', '--page', str(ROOT / page), '--check']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'results_table.py'), run_name='__main__')


def test_all_results_stand_on_the_page():
    text = PAGE.read_text()
    kept = {path.name for path in KEPT.iterdir()}
    assert kept and all(f'<!-- {name}: begin -->' in text for name in kept)


def documents(name):
    files = sorted((KEPT / name).glob(f'*/seed_*/{FILE_NAME}'))
    return [(path.parent.parent.name, read_results(path)) for path in files]


@pytest.mark.parametrize('name', FOLDERS)
def test_what_was_run_is_what_the_configs_say(name):
    folder, stem = FOLDERS[name]
    found = documents(name)
    assert found
    for method, document in found:
        (path,) = (ROOT / 'configs' / folder).glob(f'{method}_{stem}.py')
        config = Config.fromfile(path)
        assert document['run']['method'] == config.train_cfg.method.to_dict(), path
        assert document['run']['max_steps'] == config.train_cfg.max_steps
        assert document['run']['measured_on']['data']['split'] == 'test'


@pytest.mark.parametrize('name', FOLDERS)
def test_every_method_was_run_with_the_same_budget(name):
    folder, stem = FOLDERS[name]
    found = documents(name)
    files = (ROOT / 'configs' / folder).glob(f'*_{stem}.py')
    assert {method for method, _ in found} == {path.stem.split('_')[0] for path in files}
    budgets = {
        (row['steps'], row['images']['forget'], row['images']['retain'], row['task'])
        for method, document in found
        for row in document['tasks']
        if method not in ('oracle', 'random-drop')
    }
    assert len(budgets) == len({task for *_, task in budgets})


def scenario(name):
    return Config.fromfile(ROOT / 'configs' / '_base_' / 'scenarios' / f'{name}.py').scenario


def check_run(document, config, split):
    """The run is that of a config: its method, trainable part, streams and budget."""
    run = document['run']
    assert run['method'] == config.train_cfg.method.to_dict()
    assert run['max_steps'] == config.train_cfg.max_steps
    assert run['measured_on']['data']['split'] == split
    for stream in ('forget', 'retain'):
        asked = config.train_cfg.scenario[stream].to_dict()
        assert run['samplings'][stream].items() >= asked.items()
    hook = dict(config.custom_hooks[0])
    for key in run['trainable'].keys() & hook.keys() - {'type'}:
        found, asked = run['trainable'][key], hook[key]
        asked = asked.to_dict() if hasattr(asked, 'to_dict') else asked
        if isinstance(asked, dict):
            assert found.items() >= asked.items()
        else:
            assert found == (list(asked) if isinstance(asked, tuple) else asked), key


@pytest.mark.parametrize('name', OTHER_SCENARIOS)
def test_other_scenarios_were_run_as_they_say(name):
    stem, split = OTHER_SCENARIOS[name]
    tasks = set()
    for method, document in documents(name):
        tasks.add(str(document['run']['tasks']))
        if method == 'oracle':  # It has a scenario of its own.
            continue
        (path,) = (ROOT / 'configs' / 'garments').glob(
            f'{method}_deformable-detr_mobilenetv2_80s_garments-continual.py'
        )
        config = Config.fromfile(path)
        config.train_cfg.scenario = scenario(stem)
        check_run(document, config, split)
    assert len(tasks) == 1


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablations_were_run_as_their_families_say(name):
    family = name.removeprefix('ablation_').removesuffix('_val')
    path = ROOT / 'configs' / 'ablations' / f'{family}.py'
    single = SINGLE in path.read_text()
    script = ROOT / 'tools' / 'analysis_tools' / 'compare_methods.py'
    runs = runpy.run_path(str(script))['runs_of'](path, scenario(SINGLE) if single else None)
    found = dict(documents(name))
    assert found.keys() == runs.keys()
    for variant, document in found.items():
        check_run(document, runs[variant], 'val')
