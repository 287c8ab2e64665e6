"""The notebook in demo/ runs from top to bottom, with a few steps."""

import json
import os
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / 'demo' / 'forget_garments.ipynb'


def read_cells():
    return json.loads(NOTEBOOK.read_text())['cells']


def test_it_is_stored_without_outputs():
    cells = read_cells()
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    assert len(code) > 4
    assert not any(cell['outputs'] or cell['execution_count'] for cell in code)
    assert cells[0]['cell_type'] == 'markdown'
    for cell in code:
        compile(''.join(cell['source']), NOTEBOOK.name, 'exec')  # No magics: plain Python.


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MMFORGET_DATA', os.environ.get('MMFORGET_DATA', str(ROOT / 'data')))
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in read_cells():
        if cell['cell_type'] != 'code':
            continue
        exec(compile(''.join(cell['source']), NOTEBOOK.name, 'exec'), names)
        if 'parameters' in cell['metadata'].get('tags', []):
            assert {'config', 'steps'} <= set(names)
            names['steps'] = 4
            # The default is the installed package's, which may not be this one.
            config = Config.fromfile(ROOT / 'configs' / names['config'].partition('::')[2])
            config.val_dataloader.dataset.indices = 50
            names['config'] = config
    result, scores = names['result'], names['scores']
    assert result.checkpoint.is_file()
    assert [row['steps'] for row in result.results['tasks']] == [4, 4]
    row = result.results['tasks'][-1]['full']
    assert scores.full.AP_r == pytest.approx(row['AP_r'], abs=1e-4)
    assert scores.full.AP_f == pytest.approx(row['AP_f'], abs=1e-4)
    assert 'Expected time' in capsys.readouterr().out
