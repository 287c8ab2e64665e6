"""The bar chart of per-class AP."""

import pytest

from mmforget.structures import ForgettingScenario
from mmforget.visualization.class_ap_chart import class_ap_chart


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def names(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def test_bars_are_the_ap_set_by_set(scenario, results, assert_readable):
    task = scenario.tasks[1]
    per_class = results['tasks'][1]['per_class']
    figure = class_ap_chart(task, per_class)
    assert names(figure) == [*task.classes, *task.forgotten, *task.retained]
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    wanted = [ap for name in names(figure) for ap in per_class[name]]
    assert widths == pytest.approx(wanted)
    for heading in ('forgotten now', 'forgotten earlier', 'retained'):
        assert heading in texts(figure)
    assert_readable(figure)


def test_the_first_task_has_no_earlier_classes(scenario, results):
    figure = class_ap_chart(scenario.tasks[0], results['tasks'][0]['per_class'])
    assert 'forgotten earlier' not in texts(figure)


def test_undefined_ap_has_no_bar(scenario, results, assert_readable):
    per_class = {**results['tasks'][0]['per_class'], 'bag': [None, None], 'coat': [None, 0.25]}
    figure = class_ap_chart(scenario.tasks[0], per_class)
    assert len(figure.axes[0].patches) == 2 * len(per_class) - 3
    assert 'no objects' in texts(figure) and '? → 0.250' in texts(figure)
    assert_readable(figure)


def test_of_many_classes_those_that_changed_most(assert_readable):
    classes = [f'class number {i:04}' for i in range(1203)]
    task = ForgettingScenario.from_requests([classes[:2]], classes).tasks[0]
    per_class = {name: [0.5, 0.5] for name in classes}
    for name in ('class number 0700', 'class number 0044'):
        per_class[name] = [0.5, 0.2]
    per_class['class number 0003'] = [None, None]
    figure = class_ap_chart(task, per_class, max_retained=3)
    assert names(figure)[:2] == classes[:2]
    assert len(names(figure)) == 5 and 'class number 0003' not in names(figure)
    assert {'class number 0044', 'class number 0700'} <= set(names(figure))
    assert 'retained: the 3 of 1201 that changed most' in texts(figure)
    assert_readable(figure)


def test_unknown_classes(scenario):
    with pytest.raises(ValueError, match='no entry for bag, sneaker of task_1; it has coat'):
        class_ap_chart(scenario.tasks[0], {'coat': [0.5, 0.5]})
