"""The curves over the tasks."""

import math

import pytest

from mmforget.visualization.ap_curves import ap_curves


def curves(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_values_are_those_of_the_results(scenario, results, assert_readable):
    rows = results['tasks']
    figure = ap_curves(scenario.tasks, rows)
    left, right = map(curves, figure.axes)
    assert left['AP_r: retained'] == [row['full']['AP_r'] for row in rows]
    assert left['AP_f: forgotten now'] == [row['full']['AP_f'] for row in rows]
    old = left['AP_o: forgotten earlier']
    assert math.isnan(old[0]) and old[1:] == [row['full']['AP_o'] for row in rows[1:]]
    assert right["AP_r / loaded detector's AP_r"] == [row['full']['AP_r_relative'] for row in rows]
    assert right['H / its ceiling'] == pytest.approx(
        [row['full']['H'] / row['full']['H_ceiling'] for row in rows]
    )
    assert_readable(figure)


def test_dashed_lines_are_the_loaded_detector_on_the_same_classes(scenario, results):
    """Drop and relative AP_r follow from the two lines of a set."""
    rows = results['tasks']
    lines = ap_curves(scenario.tasks, rows).axes[0].lines
    dashed = [list(line.get_ydata()) for line in lines if line.get_linestyle() == '--']
    solid = {line.get_color(): line for line in lines if line.get_linestyle() == '-'}
    assert len(dashed) == 4 and len(solid) == 3  # The fourth is the legend's.
    retained, forgotten = dashed[0], dashed[1]
    for row, kept, before in zip(rows, retained, forgotten, strict=True):
        scores = row['full']
        assert scores['AP_r'] / kept == pytest.approx(scores['AP_r_relative'])
        assert before - scores['AP_f'] == pytest.approx(scores['drop'])


def test_one_task_and_long_names(scenario, results, assert_readable):
    row = {**results['tasks'][0], 'classes': ['sports ball', 'baseball glove', 'parking meter']}
    assert_readable(ap_curves(scenario.tasks[:1], [row]))


def test_scores_that_are_undefined_are_left_out(scenario, results, assert_readable):
    row = results['tasks'][0]
    blank = {**row, 'full': {**dict.fromkeys(row['full']), 'AP_r': 0.5}, 'per_class': {}}
    figure = ap_curves(scenario.tasks[:1], [blank])
    assert set(curves(figure.axes[0])) == {'AP_r: retained', 'loaded detector'}
    assert_readable(figure)


def test_a_protocol_that_was_not_measured(scenario, results):
    with pytest.raises(ValueError, match="3 tasks.*'restricted' protocol.*ForgettingCocoMetric"):
        ap_curves(scenario.tasks, results['tasks'], 'restricted')
