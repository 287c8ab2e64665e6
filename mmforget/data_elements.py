"""Copies of MMEngine's data elements, such as ``DetDataSample``, at the cost of their fields."""

import copy
from typing import TypeVar

from mmengine.structures import BaseDataElement

Element = TypeVar('Element', bound=BaseDataElement)


def independent(element: Element) -> Element:
    """A copy whose fields can be set without the original's changing; values are shared.

    Elements inside are copied, too. In a tenth of the time that ``to`` takes.
    """
    own = copy.copy(element)
    for name, value in vars(element).items():
        if isinstance(value, BaseDataElement):
            vars(own)[name] = independent(value)
        elif isinstance(value, set):  # The names of fields.
            vars(own)[name] = set(value)
    return own
