"""Every method can be searched, over arguments that it has."""

from inspect import signature

import pytest
from mmengine.config import Config

from mmforget.apis.search_spaces import LEARNING_RATES, METHOD_SPACES, search_space
from mmforget.registry import HOOKS, METHODS

METHODS.import_from_location()


def arguments(cls):
    """Of a class and of those it hands the rest on to."""
    return {name for base in cls.__mro__ for name in signature(base.__init__).parameters}


def test_every_method_has_a_space():
    assert set(METHOD_SPACES) == set(METHODS.module_dict)


@pytest.mark.parametrize('name', METHOD_SPACES)
def test_spaces_are_of_arguments(name):
    space = METHOD_SPACES[name]
    assert set(space) <= arguments(METHODS.get(name))
    assert all(
        place.low < place.high and (place.low > 0 or not place.log) for place in space.values()
    )
    METHODS.get(name)(**{key: place.low for key, place in space.items()})


def test_the_trainable_part_gives_the_learning_rate():
    assert all(name in HOOKS.module_dict for name in LEARNING_RATES)
    config = Config(
        dict(
            train_cfg=dict(method=dict(type='mmforget.DER')),
            custom_hooks=[dict(type='mmforget.FullFineTuningHook'), dict(type='EMAHook')],
        )
    )
    space = search_space(config)
    assert space.pop('optim_wrapper.optimizer.lr') == LEARNING_RATES['FullFineTuningHook']
    assert set(space) == {f'train_cfg.method.{key}' for key in METHOD_SPACES['DER']}


@pytest.mark.parametrize(
    ('method', 'hook', 'message'),
    [
        ('Mine', 'FullFineTuningHook', 'The method Mine has no search space; known are GSLoRA'),
        ('DER', 'RandomDropHook', 'custom_hooks holds RandomDropHook; expected one of Group'),
    ],
)
def test_what_cannot_be_searched_is_said(method, hook, message):
    config = Config(
        dict(
            train_cfg=dict(method=dict(type=f'mmforget.{method}')),
            custom_hooks=[dict(type=f'mmforget.{hook}')],
        )
    )
    with pytest.raises(ValueError, match=message):
        search_space(config)
