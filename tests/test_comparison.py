"""The comparison of methods, from configs to the page: what is finished stays."""

import json
import logging
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import pytest

from mmforget.engine.results import read_results
from mmforget.testing import tiny_config

TOOLS = Path(__file__).resolve().parents[1] / 'tools' / 'analysis_tools'


def call(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
    runpy.run_path(str(TOOLS / script), run_name='__main__')


@pytest.fixture(autouse=True)
def loud_again():
    """The tools silence logging and warnings for the rest of their process."""
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope='module')
def configs(tmp_path_factory, tiny_data, tiny_base):
    """Configs of two methods, and a scenario."""
    folder = tmp_path_factory.mktemp('configs')
    for name, method in (('fine-tuning', 'FineTuning'), ('gs-lora', 'GSLoRA')):
        config = tiny_config(
            tiny_data,
            'nowhere',
            load_from=str(tiny_base),
            **{'train_cfg.max_steps': 2, 'train_cfg.method': {'type': f'mmforget.{method}'}},
        )
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator
        config.test_cfg = dict(type='TestLoop')
        config.dump(str(folder / f'{name}_tiny.py'))
    (folder / 'one_task.py').write_text(
        "scenario = dict(tasks=[['bag']], forget=dict(images=6), retain=dict(images=8))\n"
    )
    return folder


@pytest.fixture(scope='module')
def compared(configs, tmp_path_factory, plain_dumps):
    """The folder of a comparison that is done."""
    folder = tmp_path_factory.mktemp('comparison')
    with pytest.MonkeyPatch.context() as patch:
        call(
            patch,
            'compare_methods.py',
            *sorted(configs.glob('*_tiny.py')),
            *('--scenario', configs / 'one_task.py', '--seeds', '1', '2', '--work-dir', folder),
        )
    return folder / 'one-task'


def test_every_method_and_seed_has_its_results(compared):
    files = sorted(str(p.parent.relative_to(compared)) for p in compared.glob('*/*/forget*.json'))
    assert files == [f'{m}/seed_{s}' for m in ('fine-tuning', 'gs-lora') for s in (1, 2)]
    documents = [read_results(compared / file / 'forgetting.json') for file in files]
    assert all(document['run']['tasks'] == [['bag']] for document in documents)
    assert [document['run']['seed'] for document in documents] == [1, 2, 1, 2]
    # One measurement of the loaded detector serves all.
    assert all(document['base'] == documents[0]['base'] for document in documents)


def test_what_is_finished_or_another_process_s_stays(compared, configs, monkeypatch, capsys):
    import fcntl

    before = {path: path.stat().st_mtime_ns for path in compared.glob('*/*/*.json')}
    arguments = [configs / 'gs-lora_tiny.py', '--scenario', configs / 'one_task.py']
    with (compared / 'gs-lora' / 'seed_2' / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call(
            monkeypatch,
            'compare_methods.py',
            *(*arguments, '--seeds', '1', '2', '--work-dir', compared.parent),
        )
    said = capsys.readouterr().out
    assert 'seed_1: finished' in said and 'seed_2: another process is at it' in said
    assert {path: path.stat().st_mtime_ns for path in compared.glob('*/*/*.json')} == before


def test_the_table_is_printed(compared, monkeypatch, capsys):
    call(monkeypatch, 'results_table.py', compared)
    said = capsys.readouterr().out
    assert '| fine-tuning' in said and '| gs-lora' in said and 'Seeds: 1, 2.' in said
    call(monkeypatch, 'results_table.py', compared / 'gs-lora' / 'seed_1')
    assert '| seed_1' in capsys.readouterr().out
    runs = [compared / name / 'seed_1' for name in ('gs-lora', 'fine-tuning')]
    call(monkeypatch, 'results_table.py', *runs)
    said = capsys.readouterr().out
    assert '| gs-lora/seed_1' in said and '| fine-tuning/seed_1' in said


def test_a_page_that_is_stale_is_found_out(compared, monkeypatch, tmp_path, capsys):
    page = tmp_path / 'results.md'
    page.write_text('# Results\n\n<!-- one-task: begin -->\n<!-- one-task: end -->\n\nText.\n')
    script = TOOLS / 'results_table.py'
    kept = tmp_path / 'kept'

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [script.name, *map(str, arguments)])
        tool = runpy.run_path(str(script), run_name='tool')
        tool['main'].__globals__['KEPT'] = kept
        tool['main']()

    run('--keep', compared)
    assert len(list(kept.glob('one-task/*/*/forgetting.json'))) == 4
    with pytest.raises(SystemExit, match='the tables one-task are not those'):
        run('--page', page, '--check')
    run('--page', page)
    run('--page', page, '--check')
    assert '| gs-lora' in page.read_text() and page.read_text().endswith('\n\nText.\n')
    file = next(kept.glob('one-task/gs-lora/*/forgetting.json'))
    file.write_text(file.read_text().replace('"seconds": ', '"seconds": 9'))
    with pytest.raises(SystemExit, match='one-task'):
        run('--page', page, '--check')


@pytest.mark.parametrize(
    ('script', 'arguments', 'message'),
    [
        ('results_table.py', [], 'nothing to do'),
        ('results_table.py', ['nowhere'], 'holds neither forgetting.json'),
        ('compare_methods.py', ['nowhere.py'], 'nowhere.py is no file'),
    ],
)
def test_errors_name_what_is_wrong(script, arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, script, *arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_search_goes_on_where_it_was_cut(configs, tmp_path, monkeypatch, capsys, plain_dumps):
    pytest.importorskip('optuna')
    config = configs / 'gs-lora_tiny.py'
    arguments = [config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_steps=1']
    arguments += ['train_cfg.scenario.tasks=[[bag],[dress]]', '--tasks', '1']
    call(monkeypatch, 'tune.py', *arguments, '--trials', '2')
    first = capsys.readouterr().out
    assert 'gs-lora 0: ' in first and 'gs-lora 1: ' in first and 'of 2 trials' in first
    call(monkeypatch, 'tune.py', *arguments, '--trials', '3')
    second = capsys.readouterr().out
    assert 'gs-lora 2: ' in second and 'gs-lora 1: ' not in second
    best = json.loads((tmp_path / 'gs-lora_tiny.json').read_text())
    assert best['trials'] == 3
    assert set(best) - {'trials', 'value'} == {
        'optim_wrapper.optimizer.lr',
        'train_cfg.method.bound',
        'train_cfg.method.forget_weight',
    }
    # The first trial is the config itself; the others are apart from it and from each other.
    rates = [
        read_results(path)['run']['method'].get('forget_weight')
        for path in sorted((tmp_path / 'gs-lora_tiny').glob('trial_*/forgetting.json'))
    ]
    assert len(rates) == len(set(rates)) == 3
    # Of two tasks only the first was run.
    assert (
        len(read_results(tmp_path / 'gs-lora_tiny' / 'trial_2' / 'forgetting.json')['tasks']) == 1
    )
    assert not list(tmp_path.rglob('*.pth'))


def test_the_value_of_a_trial_counts_what_comes_back():
    value = runpy.run_path(str(TOOLS / 'tune.py'))['trial_value']

    def document(*rows):
        return {
            'tasks': [
                {'classes': [name], 'per_class': {n: [0.5, ap] for n, ap in zip('abc', aps)}}
                for name, aps in zip('ab', rows)
            ]
        }

    assert value(document((0.0, 0.5, 0.5), (0.0, 0.0, 0.5))) == 1.0
    assert value(document((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))) == 0.0
    # The first class comes back while the second goes: half of both is left.
    assert value(document((0.0, 0.5, 0.5), (0.5, 0.0, 0.5))) == pytest.approx((1 + 2 / 3) / 2)
    # Half of what is retained is lost.
    assert value(document((0.0, 0.25, 0.25))) == pytest.approx(2 / 3)
    # A gain on retained classes makes up for nothing.
    assert value(document((0.25, 0.6, 0.6))) == pytest.approx(2 / 3)


def test_an_oracle_beside_serves_scenarios_that_end_alike(compared, monkeypatch, tmp_path, capsys):
    place = tmp_path / 'few' / 'gs-lora'
    shutil.copytree(compared / 'gs-lora', place)
    oracle = tmp_path / 'many' / 'oracle' / 'seed_1'
    shutil.copytree(compared / 'fine-tuning' / 'seed_1', oracle)
    call(monkeypatch, 'results_table.py', place.parent)
    assert '| oracle ' in capsys.readouterr().out
    file = oracle / 'forgetting.json'
    file.write_text(file.read_text().replace('"measured_on"', '"measured_elsewhere"'))
    call(monkeypatch, 'results_table.py', place.parent)
    assert '| oracle ' not in capsys.readouterr().out


def test_references_beside_must_have_the_same_budget(compared, monkeypatch, tmp_path, capsys):
    place = tmp_path / 'few' / 'gs-lora' / 'seed_1'
    shutil.copytree(compared / 'gs-lora' / 'seed_1', place)
    for name, steps in (('retrain', 2), ('random-drop', 3)):
        reference = tmp_path / 'many' / name / 'seed_1'
        shutil.copytree(compared / 'fine-tuning' / 'seed_1', reference)
        file = reference / 'forgetting.json'
        file.write_text(file.read_text().replace('"max_steps": 2', f'"max_steps": {steps}'))
    call(monkeypatch, 'results_table.py', place.parents[1])
    said = capsys.readouterr().out
    assert '| retrain ' in said and '| random-drop ' not in said


def test_curves_are_measured_on_the_way(configs, monkeypatch, tmp_path, plain_dumps):
    call(
        monkeypatch,
        'compare_methods.py',
        *(configs / 'fine-tuning_tiny.py', '--scenario', configs / 'one_task.py'),
        *('--curves-every', '1', '--work-dir', tmp_path),
    )
    call(monkeypatch, 'plot_methods.py', tmp_path / 'one-task', '--out-dir', tmp_path)
    assert (tmp_path / 'one-task_against_steps.png').stat().st_size > 5000
    (path,) = tmp_path.rglob('curves.json')
    points = json.loads(path.read_text())['points']
    assert [(point['task'], point['step']) for point in points] == [(1, 1), (1, 2)]


def test_figures_are_drawn(compared, monkeypatch, tmp_path, capsys):
    call(monkeypatch, 'plot_methods.py', compared, '--out-dir', tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f'one-task_{name}.png' for name in ('trade_off', 'against_tasks')}
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    with pytest.raises(SystemExit):
        call(monkeypatch, 'plot_methods.py', tmp_path)
    assert 'holds no finished METHOD/seed_N/forgetting.json' in capsys.readouterr().err


def test_ranges_are_widened_to_what_the_config_says():
    from mmforget.apis.search_spaces import Range

    widened = runpy.run_path(str(TOOLS / 'tune.py'))['widened']
    space = {'lr': Range(0.001, 0.1), 'share': Range(0.1, 1.0, log=False), 'other': Range(1.0, 2.0)}
    wide = widened(space, {'lr': 1e-4, 'share': 0.0, 'other': 1.5})
    assert wide['lr'] == Range(1e-4, 0.1) and wide['share'] == Range(0.0, 1.0, log=False)
    assert wide['other'] == space['other']
    assert widened(space, {'lr': 0.0})['lr'] == space['lr'], 'no logarithm of nothing'
