"""tools/analysis_tools/benchmark.py: what it prints and writes, not how fast anything is."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

from mmforget.benchmarks.machine import describe
from mmforget.benchmarks.measurement import Settings
from mmforget.benchmarks.memory import peak_memory
from mmforget.benchmarks.report import Report
from mmforget.benchmarks.steps import ONE_GROUP, garments_cases

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'analysis_tools' / 'benchmark.py'


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command in this process; returns what its JSON file holds."""
    monkeypatch.setenv('MMFORGET_DATA', str(ROOT / 'data'))
    spec = importlib.util.spec_from_file_location('benchmark_script', SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    file = tmp_path / 'out' / 'benchmark.json'

    def run(*options):
        argv = [str(SCRIPT), '--quick', '--json', str(file), '--scratch', str(tmp_path / 'made')]
        monkeypatch.setattr(sys, 'argv', [*argv, *options])
        monkeypatch.setattr(script.logging, 'disable', lambda level: None)
        script.main()
        return json.loads(file.read_text())

    return run


def check_tables(content, levels):
    assert {'schema', 'machine', 'quick', 'rates', 'tables', 'targets'} == set(content)
    assert {table['level'] for table in content['tables']} == set(levels)
    for table in content['tables']:
        rows = {row['variant']: row for row in table['rows']}
        assert rows[table['reference']]['ratio'] == 1
        for row in rows.values():
            assert row['error'] is None
            for key in ('seconds', 'fastest', 'slowest', 'ratio'):
                assert math.isfinite(row[key]) and row[key] > 0
            assert row['fastest'] <= row['seconds'] <= row['slowest']
            assert all(not isinstance(v, float) or v >= 0 for v in row['details'].values())


def test_quick_ffn(command, tmp_path, capsys):
    page = tmp_path / 'page.md'
    content = command('--levels', 'ffn', '--no-memory', '--page', str(page))
    check_tables(content, ['ffn'])
    assert content['quick'] and content['machine']['threads'] > 0
    (table,) = content['tables']
    assert table['repetitions'] == 2
    trainable = {row['variant']: row['trainable'] for row in table['rows']}
    adapters = 2 * 8 * (256 + 1024)
    assert trainable.pop('frozen, no adapter') == 0
    assert trainable == {name: adapters for name in ('loralib', 'peft', 'mmforget')}
    # Each of two layers multiplies by its weight, forward and backward; adapters add thin products.
    frozen = 2 * 2 * 2 * 64 * 256 * 1024 / 1e9
    counted = {row['variant']: row['details']['GFLOP'] for row in table['rows']}
    assert counted['frozen, no adapter'] == pytest.approx(frozen, rel=0.05)
    assert min(counted[name] for name in trainable) > frozen
    text = page.read_text()
    assert 'loralib' in text and 'Quick sizes' in text and 'GFLOP/s' in text
    assert 'Everything is in' in capsys.readouterr().out


@pytest.mark.slow
def test_keep_adds_to_what_is_there(command):
    command('--levels', 'streams', '--no-memory')
    content = command('--levels', 'ffn', '--no-memory', '--keep')
    check_tables(content, ['ffn', 'streams'])
    assert [table['level'] for table in content['tables']] == ['ffn', 'streams']
    assert {t['level'] for t in command('--levels', 'ffn', '--no-memory')['tables']} == {'ffn'}


def test_keep_refuses_another_machine(command, tmp_path):
    Report({**describe('cpu'), 'cores': 1000}, quick=True).write(tmp_path / 'out/benchmark.json')
    with pytest.raises(SystemExit, match='figures of both do not go into one table'):
        command('--levels', 'ffn', '--no-memory', '--keep')


@pytest.mark.parametrize('options', [['--repetitions', '0'], ['--threads', '0']])
def test_options_out_of_range(command, options, capsys):
    with pytest.raises(SystemExit):
        command(*options)
    assert f'{options[0]} is 0; expected at least 1' in capsys.readouterr().err


@pytest.mark.slow
def test_quick_steps(command):
    content = command('--levels', 'garments', '--no-memory')
    check_tables(content, ['garments'])
    rows = {row['variant'][:3]: row for row in content['tables'][0]['rows']}
    assert rows['R2 ']['trainable'] > 50 * rows['R0 ']['trainable']
    assert rows['A.3']['cache_bytes'] > 0 and rows['R0 ']['cache_bytes'] == 0
    losses = [rows[name]['details']['first loss'] for name in ('R0 ', 'R1 ', 'A.1', 'A.2', 'A.3')]
    assert losses == pytest.approx([losses[0]] * 5, rel=1e-4)


@pytest.mark.slow
def test_memory_of_a_step(tmp_path, monkeypatch):
    """In a fresh process; one variant of all that the command measures."""
    monkeypatch.setenv('MMFORGET_DATA', str(ROOT / 'data'))
    settings = Settings(str(ROOT / 'configs'), str(tmp_path), quick=True)
    case = garments_cases(settings)[0]
    assert 1e6 < peak_memory(case, ONE_GROUP, settings) < 1e9


@pytest.mark.slow
def test_quick_validation_agrees(command):
    """Three passes and one give the same AP: they measure the same thing."""
    content = command('--levels', 'validation', '--no-memory')
    check_tables(content, ['validation'])
    first, *others = [row['details'] for row in content['tables'][0]['rows']]
    assert set(first) == {'AP_f', 'AP_r', 'AP_o'} and first['AP_r'] > 0.2
    assert all(other == pytest.approx(first, abs=6e-4) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('level', 'repetitions'),
    # Twice: a run that has ended must leave nothing in the process that the next one trips over.
    [('r50', '1'), ('run', '2'), ('scaling', '1')],
)
def test_quick_level(command, level, repetitions):
    options = ('--repetitions', repetitions, '--no-memory')
    check_tables(command('--levels', level, *options), [level])
