"""Requests: what a privacy desk queues is understood, or refused in plain words."""

import json

import pytest

from mmforget.apis import ForgettingRequest, read_request

CLASSES = ('t-shirt', 'trouser', 'dress', 'sneaker', 'bag')


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_list_of_names_is_one_task():
    request = ForgettingRequest(['bag', 'sneaker'])
    assert request.tasks == (('bag', 'sneaker'),)
    assert request.forget_sampling(64) == {'images': 64}
    assert request.retain_sampling(400) == {'images': 400}


def test_few_shot_is_so_many_of_each_class_in_both_streams():
    request = ForgettingRequest([['bag']], few_shot=16)
    assert request.forget_sampling(64) == {'shots': 16, 'balanced': True}
    assert request.retain_sampling(400) == {'shots': 16, 'balanced': True}


def test_json_and_yaml_say_the_same(tmp_path):
    tasks = [['bag', 'sneaker'], ['trouser']]
    as_json = write(tmp_path, 'a.json', json.dumps({'tasks': tasks, 'retain_ratio': 0.1}))
    as_yaml = write(
        tmp_path, 'a.yml', 'tasks: [[bag, sneaker], [trouser]]  # two\nretain_ratio: 0.1\n'
    )
    assert read_request(as_json) == read_request(as_yaml)
    assert read_request(as_yaml) == ForgettingRequest(tasks, retain_ratio=0.1)


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a.txt', 'tasks: []', r"ends in '.txt'; expected .json"),
        ('a.json', '{"tasks": [', 'a.json is no valid JSON'),
        ('a.yml', 'tasks: [bag', 'a.yml is no valid YAML'),
        ('a.yml', '- bag', 'holds list; expected a mapping with the key tasks'),
        ('a.yml', 'classes: [bag]', r"holds \['classes'\]; expected a mapping with the key tasks"),
        ('a.yml', 'tasks: [bag]\nstep: 3', "unknown key 'step'. Did you mean 'steps'.*few_shot"),
        ('a.yml', 'tasks: [no]', 'expected a list of at least one class name|no text'),
        ('a.yml', 'tasks: [[no, bag]]', 'Task 1 holds False, which is no text.*quotes'),
        ('a.yml', 'tasks: [[bag], []]', r'Task 2 is \[\]; expected a list of at least one'),
        ('a.yml', 'tasks: bag', "are 'bag'; expected a list of class names"),
        ('a.yml', 'tasks: [bag]\nsteps: many', "a.yml: steps is 'many'; expected a whole number"),
        ('a.yml', 'tasks: [bag]\nretain_ratio: 2', r'retain_ratio is 2; expected a share in'),
        (
            'a.yml',
            'tasks: [bag]\nretain_ratio: 0.5\nfew_shot: 3',
            'retain_ratio=0.5, few_shot=3; give at most one',
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_request(write(tmp_path, name, text))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.yml.*does not exist'):
        read_request(tmp_path / 'gone.yml')


@pytest.mark.parametrize(
    ('tasks', 'message'),
    [
        (['bag', 'bag'], "'bag' is asked for twice, in task 1. Name it once"),
        ([['bag'], ['dress', 'bag']], "'bag' is asked for twice, in task 1 and in task 2"),
    ],
)
def test_a_class_asked_for_twice(tasks, message):
    with pytest.raises(ValueError, match=message):
        ForgettingRequest(tasks)


def test_an_unknown_class_gets_the_nearest_names():
    with pytest.raises(ValueError, match="'Sneekers' is unknown. Did you mean 'sneaker'.*t-shirt"):
        ForgettingRequest(['bag', 'Sneekers']).check_classes(CLASSES)
    with pytest.raises(ValueError, match="'xyz' is unknown. The data set has: t-shirt"):
        ForgettingRequest(['xyz']).check_classes(CLASSES)


def test_something_must_be_left():
    with pytest.raises(ValueError, match='all 5 classes.*Leave at least one out'):
        ForgettingRequest(CLASSES).check_classes(CLASSES)
    ForgettingRequest(CLASSES[1:]).check_classes(CLASSES)
