"""All pictures of a results file, and the tool that draws them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmforget.visualization.figures import encode_png, figure_pixels
from mmforget.visualization.result_pictures import result_pictures

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'plot_results.py'


def without(results, *keys):
    return {'tasks': [{**row, **{key: {} for key in keys}} for row in results['tasks']]}


def test_pictures_of_a_finished_run(results):
    names = {'ap_curves', 'group_norms'} | {f'task_{n}_class_ap' for n in (1, 2, 3)}
    assert set(result_pictures(results)) == names
    assert set(result_pictures(results, last_only=True)) == names - {
        'task_1_class_ap',
        'task_2_class_ap',
    }


def test_what_was_not_measured_is_left_out(results):
    assert set(result_pictures(without(results, 'per_class', 'full'))) == {'group_norms'}
    assert 'group_norms' not in result_pictures(without(results, 'groups'))


def test_no_task():
    with pytest.raises(ValueError, match='no task yet'):
        result_pictures({'tasks': []})


def test_png_holds_the_pixels_and_drawing_repeats(results, tmp_path):
    pixels, again = (figure_pixels(result_pictures(results)['group_norms']) for _ in range(2))
    np.testing.assert_array_equal(pixels, again)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and pixels.std() > 10
    (tmp_path / 'a.png').write_bytes(encode_png(pixels))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), pixels)


@pytest.fixture
def run_tool(monkeypatch):
    """Runs the script in this process, which has torch imported already."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


def test_tool(results, tmp_path, run_tool, capsys):
    (tmp_path / 'forgetting.json').write_text(json.dumps(results))
    run_tool(tmp_path)
    files = sorted((tmp_path / 'pictures').iterdir())
    assert [path.stem for path in files] == sorted(result_pictures(results))
    assert all(Image.open(path).size[0] > 300 for path in files)
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in files]


@pytest.mark.parametrize(
    ('content', 'arguments', 'message'),
    [
        (None, [], 'is no file; expected a forgetting.json'),
        ({'schema': 0}, [], 'has schema 0, expected 1'),
        ({'schema': 1, 'base': {}, 'tasks': []}, [], 'no task yet'),
        ('results', ['--protocol', 'restricted'], "scores of the 'restricted' protocol"),
    ],
    ids=['no file', 'another schema', 'no task', 'protocol'],
)
def test_tool_says_what_is_wrong(results, tmp_path, run_tool, capsys, content, arguments, message):
    path = tmp_path / 'forgetting.json'
    if content is not None:
        path.write_text(json.dumps(results if content == 'results' else content))
    with pytest.raises(SystemExit) as stopped:
        run_tool(path, *arguments)
    shown = capsys.readouterr().err.replace('\n', ' ')
    assert stopped.value.code == 2 and message in shown
    assert not (tmp_path / 'pictures').exists()
