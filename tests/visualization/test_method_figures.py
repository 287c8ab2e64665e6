"""Methods side by side: the values are those of the files, and every text can be read."""

import copy
import math

import pytest

from mmforget.visualization.method_figures import (
    sparsity_path,
    step_curves,
    task_curves,
    trade_off,
)

NAMES = (
    *('background-labels', 'der', 'der-plus-plus', 'ewc', 'fdr', 'fine-tuning', 'gradient-ascent'),
    *(
        'gs-lora',
        'gs-lora-plus-plus',
        'gs-lora-trial',
        'gs-lora-distilled',
        'l2',
        'lwf',
        'mas',
        'scrub',
        'scrub-s',
    ),
)


def shifted(results, amount):
    """Another run whose every score is a little higher."""
    other = copy.deepcopy(results)
    for row in other['tasks']:
        row['full'] = {k: None if v is None else v + amount for k, v in row['full'].items()}
    return other


@pytest.fixture
def runs(results):
    return {name: [shifted(results, 0.01 * number)] for number, name in enumerate(NAMES)}


def lines_of(axes):
    return {
        line.get_label(): list(line.get_ydata())
        for line in axes.lines
        if not line.get_label().startswith('_')
    }


def test_against_tasks(runs, results, assert_readable):
    runs['der'] = [results, shifted(results, 0.2)]
    figure = task_curves(runs)
    forgotten, old, kept, reached = map(lines_of, figure.axes)
    assert set(forgotten) == set(NAMES)
    rows = [row['full'] for row in results['tasks']]
    assert forgotten[NAMES[0]] == pytest.approx([row['AP_f'] for row in rows])
    assert math.isnan(old['ewc'][0])
    assert old['der'][1:] == pytest.approx([row['AP_o'] + 0.1 for row in rows[1:]])
    assert kept[NAMES[0]] == pytest.approx([row['AP_r_relative'] for row in rows])
    expected = [
        (row['H'] / row['H_ceiling'] + (row['H'] + 0.2) / (row['H_ceiling'] + 0.2)) / 2
        for row in rows
    ]
    assert reached['der'] == pytest.approx(expected)
    assert_readable(figure)


def test_the_trade_off_is_a_point_for_each_method(runs, results, assert_readable):
    figure = trade_off(runs)
    (axes,) = figure.axes
    points = {c.get_label(): c.get_offsets()[0].tolist() for c in axes.collections}
    assert set(points) == set(NAMES)
    last = results['tasks'][-1]['full']
    assert points[NAMES[0]] == pytest.approx(
        [last['AP_r_relative'], max(last['AP_f'], last['AP_o'])]
    )
    assert_readable(figure)


def test_against_steps(assert_readable):
    points = [
        {'task': task, 'step': step, 'full': {'AP_r': 0.5, 'AP_f': 0.4 / step, 'AP_o': None}}
        for task in (1, 2)
        for step in (20, 40, 80)
    ]
    figure = step_curves({'gs-lora': points, 'der': points[:3]})
    line = next(line for line in figure.axes[1].lines if line.get_label() == 'gs-lora')
    assert list(line.get_xdata()) == [20, 40, 80, 100, 120, 160]
    assert list(line.get_ydata()) == [p['full']['AP_f'] for p in points]
    assert_readable(figure)


def test_the_path_counts_tasks_in_which_a_group_lives(results, assert_readable):
    runs = {'strength-0.5': [results], 'strength-0': [results]}
    figure = sparsity_path(runs, {'strength-0': '0', 'strength-0.5': '0.5'})
    shown = figure.axes[0].images[0].get_array()
    assert shown.tolist() == [[0, 0], [2 / 3, 2 / 3], [1, 1]]
    assert_readable(figure)


def test_nothing_to_draw(results):
    for draw in (task_curves, trade_off, step_curves):
        with pytest.raises(ValueError, match='There is no'):
            draw({})
    plain = copy.deepcopy(results)
    for row in plain['tasks']:
        row['groups'] = {}
    with pytest.raises(ValueError, match='no run with groups'):
        sparsity_path({'a': [plain]}, {'a': 'a'})
