"""``python -m mmforget TOOL``: the scripts of tools/ from wherever the package is."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmforget import __main__ as main_module
from mmforget.__main__ import main, tools

ROOT = Path(__file__).resolve().parents[1]


def test_every_script_is_a_tool():
    scripts = {path.stem for path in (ROOT / 'tools').rglob('*.py')}
    assert set(tools()) == scripts and {'forget', 'train', 'test', 'demo'} <= scripts


def test_a_tool_gets_the_rest_of_the_line(tmp_path, monkeypatch, capsys):
    (tmp_path / 'analysis').mkdir()
    (tmp_path / 'analysis' / 'show.py').write_text(
        "import sys\nif __name__ == '__main__':\n    print(sys.argv[1:])\n"
    )
    monkeypatch.setattr(main_module, 'TOOLS', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['mmforget', 'show', 'config.py', '--resume'])
    main()
    assert capsys.readouterr().out == "['config.py', '--resume']\n"


@pytest.mark.parametrize('arguments', [[], ['forgett']])
def test_no_such_tool(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmforget', *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr().err
    assert stopped.value.code == 2
    assert 'demo' in shown and 'plot_results' in shown and 'unknown tool' in shown


@pytest.mark.slow
def test_help_of_the_tool_itself():
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmforget', 'plot_results', '--help'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert 'forgetting.json' in result.stdout
