"""Scenarios and stream sampling: what they derive, and what they refuse."""

import pytest

from mmforget.structures import ForgettingScenario, ResultsRow, StreamSampling

CLASSES = ('cat', 'dog', 'cow', 'owl', 'fox')


def test_tasks_of_a_scenario():
    """R_t shrinks and O_t grows, both in the order of the label map."""
    scenario = ForgettingScenario.from_requests([['owl', 'cat'], ['cow'], ['dog']], CLASSES)
    assert scenario.classes == CLASSES
    assert [task.index for task in scenario.tasks] == [0, 1, 2]
    assert [task.name for task in scenario.tasks] == ['task_1', 'task_2', 'task_3']
    assert [task.classes for task in scenario.tasks] == [('owl', 'cat'), ('cow',), ('dog',)]
    assert [task.retained for task in scenario.tasks] == [
        ('dog', 'cow', 'fox'),
        ('dog', 'fox'),
        ('fox',),
    ]
    assert [task.forgotten for task in scenario.tasks] == [
        (),
        ('cat', 'owl'),
        ('cat', 'cow', 'owl'),
    ]
    for task in scenario.tasks:
        parts = [*task.classes, *task.retained, *task.forgotten]
        assert sorted(parts) == sorted(CLASSES)


@pytest.mark.parametrize(
    ('requests', 'message'),
    [
        ([], 'expected a list of lists'),
        ('cat', 'expected a list of lists'),
        ([[]], r'tasks\[0\] is \[\]'),
        (['cat'], r"tasks\[0\] is 'cat'"),
        ([['cat'], ['hat']], r"tasks\[1\] names the class 'hat'.*cat, dog, cow"),
        ([['cat'], ['dog', 'cat']], r"tasks\[1\] names the class 'cat'.*tasks\[0\] forgets"),
        ([['cat', 'cat']], "'cat', which.*forgets already"),
        ([['cat', 'dog'], ['cow', 'owl', 'fox']], r'tasks\[1\] nothing is left to retain.*all 5'),
    ],
)
def test_impossible_scenarios(requests, message):
    with pytest.raises(ValueError, match=message):
        ForgettingScenario.from_requests(requests, CLASSES)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('Dog', "the class 'Dog', which the detector does not know. Did you mean 'dog'"),
        ('foxx', "Did you mean 'fox'"),
        ('coat', "Did you mean 'cat'"),
        ('zebra', 'does not know. Its classes are: cat, dog, cow, owl, fox'),
        (3, r'tasks\[0\] names the class 3, which the detector does not know. Its classes'),
    ],
)
def test_unknown_classes_name_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        ForgettingScenario.from_requests([[name]], CLASSES)


def test_a_long_label_map_is_cut():
    with pytest.raises(ValueError, match="mean 'c107'.*: c0, c1, .*, c99, ... and 1103 more"):
        ForgettingScenario.from_requests([['C107']], [f'c{i}' for i in range(1203)])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({}, 'give exactly one'),
        ({'images': 4, 'ratio': 0.1}, 'give exactly one'),
        ({'images': 0}, 'images=0'),
        ({'shots': -1}, 'shots=-1'),
        ({'ratio': 1.5}, r'share in \(0, 1\]'),
        ({'images': 4, 'unlabelled': 'drop'}, "unlabelled='drop'"),
        ({'images': 4, 'augmentations': 0}, 'augmentations=0; expected a positive whole number'),
        ({'images': 4, 'augmentations': 1.5}, 'augmentations=1.5'),
    ],
)
def test_impossible_samplings(arguments, message):
    with pytest.raises(ValueError, match=message):
        StreamSampling(**arguments)


def test_a_whole_share_is_allowed():
    assert StreamSampling(ratio=1).ratio == 1


def test_a_row_becomes_plain_types():
    row = ResultsRow(1, ['cat'], 4, {'forget': 3}, 1.5, 2.5, 10, 0.1, {'encoder.layers.0': 0.5})
    row.per_class['cat'] = [0.5, None]
    plain = row.to_dict()
    assert plain['per_class'] == {'cat': [0.5, None]} and plain['full'] == {}
    plain['groups'].clear()
    assert row.groups, 'a copy'
