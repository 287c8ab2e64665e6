"""Scenarios told by number: the authors' order, shares, missing classes."""

import pytest
from mmdet.datasets import CocoDataset

from mmforget.structures import ForgettingScenario

COCO = CocoDataset.METAINFO['classes']
# The category ids of COCO in the order of these names.
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
LETTERS = tuple('abcdefghij')

# As the authors' detection code prints it for --seed_cls 123 (spec A.3).
AUTHORS_ORDER = [
    [74, 64, 65, 5, 79, 59, 36, 88, 9, 49],
    [10, 42, 86, 34, 82, 90, 72, 89, 50, 25],
    [2, 27, 75, 51, 67, 22, 16, 85, 18, 31],
    [21, 80, 7, 73, 57, 17, 81, 20, 15, 24],
    [11, 56, 13, 1, 6, 48, 4, 46, 14, 60],
    [39, 32, 35, 23, 38, 43, 58, 33, 40, 47],
    [8, 54, 70, 62, 87, 44, 3, 77, 61, 55],
    [78, 41, 28, 52, 37, 84, 53, 63, 19, 76],
]


def scenario(classes=LETTERS, **config):
    return ForgettingScenario.from_config(config, classes)


def test_the_authors_seven_tasks_on_coco():
    ids = dict(zip(COCO, COCO_IDS, strict=True))
    built = scenario(COCO, class_order=dict(seed=123), tasks=[10] * 7)
    forgotten = [[ids[name] for name in task.classes] for task in built.tasks]
    assert forgotten == AUTHORS_ORDER[:0:-1]
    assert {ids[name] for name in built.tasks[-1].retained} == set(AUTHORS_ORDER[0])
    assert 'person' in built.tasks[3].classes
    assert built.tasks[0].classes[0] == 'microwave'


@pytest.mark.parametrize(('share', 'count'), [(0.01, 1), (0.1, 8), (0.3, 24), (0.5, 40)])
def test_a_share_of_the_classes_at_once(share, count):
    (task,) = scenario(COCO, class_order=dict(seed=123), tasks=[share]).tasks
    assert len(task.classes) == count
    assert len(task.retained) == 80 - count


def test_numbers_count_from_the_end_of_the_label_order_by_default():
    first, second = scenario(tasks=[3, 2]).tasks
    assert first.classes == ('h', 'i', 'j')
    assert second.classes == ('f', 'g')
    assert second.forgotten == ('h', 'i', 'j')


def test_an_order_can_be_given_by_name():
    (task,) = scenario(tasks=[2], class_order=list(reversed(LETTERS))).tasks
    assert task.classes == ('b', 'a')


def test_names_need_no_order():
    assert scenario(tasks=[['c'], ['a']]).tasks == scenario(tasks=[('c',), ('a',)]).tasks


def test_missing_classes_are_retained_but_not_replayed():
    first, second = scenario(tasks=[['b'], ['d']], missing=['a', 'c']).tasks
    assert first.missing == second.missing == ('a', 'c')
    assert second.retained == ('a', 'c', 'e', 'f', 'g', 'h', 'i', 'j')
    assert second.replayed == ('e', 'f', 'g', 'h', 'i', 'j')


def test_a_number_of_missing_classes_is_the_first_of_the_order():
    (task,) = scenario(tasks=[2], missing=3, class_order=list(reversed(LETTERS))).tasks
    assert set(task.missing) == {'j', 'i', 'h'}


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(tasks=[3], class_order=dict(seed=-1)), r"class_order is \{'seed': -1\}"),
        (dict(tasks=[3], class_order=dict(sed=1)), 'expected dict'),
        (dict(tasks=[3], class_order=['a', 'b']), 'each class of the label map once'),
        (dict(tasks=[3, ['a']]), r'tasks\[1\] is'),
        (dict(tasks=[['a'], 3]), r'tasks\[0\] is'),
        (dict(tasks=[0]), r'tasks\[0\] is 0'),
        (dict(tasks=[1.5]), r'tasks\[0\] is 1.5'),
        (dict(tasks=[True]), r'tasks\[0\] is True'),
        (dict(tasks=[6, 4]), r'tasks\[1\] is 4, which are 4 classes, but only 4 of 10'),
        (dict(tasks=[['a']], missing=['z']), "names the class 'z', which the detector"),
        (dict(tasks=[['a']], missing=['a']), 'which a task forgets'),
        (dict(tasks=[['a']], missing=['b', 'b']), 'twice'),
        (dict(tasks=[['a']], missing='b'), "scenario.missing is 'b'"),
        (dict(tasks=[6], missing=4), 'leave at least one'),
    ],
)
def test_what_does_not_fit_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        scenario(**config)
