"""Which images a panel shows."""

import pytest

from mmforget.visualization.picture_images import choose_images

HELD = [
    {'coat'},
    {'bag'},
    {'bag', 'coat'},
    set(),
    {'sneaker'},
    {'bag', 'sneaker'},
    {'sneaker', 'coat'},
    {'bag', 'coat'},
]


@pytest.mark.parametrize(
    ('classes', 'number', 'chosen'),
    [
        pytest.param(['bag', 'sneaker'], 2, [2, 6], id='classes take turns, mixed images first'),
        pytest.param(['bag', 'sneaker'], 5, [2, 6, 7, 4, 1], id='then those that hold it alone'),
        pytest.param(['sneaker'], 3, [5, 6, 4], id='other classes are what is beside it'),
        pytest.param(['hat'], 3, [0, 1, 2], id='nobody holds it'),
        pytest.param(['bag'], 99, [2, 5, 7, 1, 0, 3, 4, 6], id='more than there are'),
    ],
)
def test_choice(classes, number, chosen):
    assert choose_images(HELD, classes, number) == chosen


def test_no_images():
    assert choose_images([], ['bag'], 3) == []
