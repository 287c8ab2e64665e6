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
}


def test_tables_are_those_of_the_results_files(monkeypatch):
    arguments = ['results_table.py', '--page', str(PAGE), '--check']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'results_table.py'), run_name='__main__')
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
