"""The heat map of the groups' norms."""

import numpy as np
import pytest

from mmforget.visualization.group_heat_map import group_heat_map


def test_norms_by_group_and_task(results, assert_readable):
    figure = group_heat_map(results['tasks'])
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    assert shown.shape == (3, 3)
    assert [t.get_text() for t in axes.get_yticklabels()] == list(results['tasks'][0]['groups'])
    np.testing.assert_array_equal(shown.mask[:, 0], [True, True, False])
    np.testing.assert_allclose(shown.filled(0)[:, 2], [0.0, 0.5, 3.25])
    dead = [p for p in axes.patches if p.get_hatch()]
    assert len(dead) == sum(n == 0 for row in results['tasks'] for n in row['groups'].values())
    assert sum(text.get_text() == 'dead' for text in axes.texts) == len(dead)
    assert_readable(figure)


def test_a_group_that_a_task_does_not_have_is_neither_dead_nor_alive(assert_readable):
    rows = [
        {'task': 1, 'classes': ['bag'], 'groups': {'a': 1.0}},
        {'task': 2, 'classes': ['coat'], 'groups': {'a': 0.0, 'b': 2.0}},
    ]
    axes = group_heat_map(rows).axes[0]
    assert axes.images[0].get_array().mask.tolist() == [[False, True], [True, False]]
    assert len([p for p in axes.patches if p.get_hatch()]) == 1


def test_all_groups_dead(assert_readable):
    assert_readable(group_heat_map([{'task': 1, 'classes': ['bag'], 'groups': {'a': 0.0}}]))


def test_many_groups_and_long_names(assert_readable):
    groups = {f'decoder.layers.{i}.ffn.layers.0.0.lora_A': 0.1 * i for i in range(48)}
    rows = [
        {'task': t, 'classes': ['hair drier', 'sports ball', 'stop sign'], 'groups': groups}
        for t in (1, 2, 3, 4)
    ]
    assert_readable(group_heat_map(rows))


def test_no_groups():
    with pytest.raises(ValueError, match='No task has groups'):
        group_heat_map([{'task': 1, 'classes': ['bag'], 'groups': {}}])
