"""Class sets told by number: the first or the last classes of an order (spec A.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmforget.nearest import did_you_mean


def class_order(order: Any, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order from which a scenario counts.

    ``dict(seed=123)`` shuffles them as the authors do: NumPy's legacy generator, seeded with 123,
    on the list of classes by category id, which is the label order.

    Args:
        order: ``dict(seed=...)``, all names in the wanted order, or ``None`` for the label order.
        classes: The detector's full label map.

    Raises:
        ValueError: ``order`` is something else, or its names are not those of the label map.
    """
    if order is None:
        return tuple(classes)
    if isinstance(order, Mapping):
        seed = order.get('seed')
        if set(order) != {'seed'} or not _is_count(seed, least=0):
            raise ValueError(
                f'scenario.class_order is {dict(order)!r}; expected dict(seed=...) with a whole '
                'number >= 0, for example dict(seed=123), or a list of all class names.'
            )
        shuffled = list(classes)
        np.random.RandomState(seed).shuffle(shuffled)
        return tuple(shuffled)
    if isinstance(order, (list, tuple)) and sorted(map(str, order)) == sorted(classes):
        return tuple(order)
    raise ValueError(
        f'scenario.class_order is {order!r}; expected dict(seed=...), or each class of the label '
        f'map once: {", ".join(classes)}.'
    )


def numbered_requests(tasks: Any, order: Sequence[str]) -> Any:
    """Requests with their class names where a scenario gives numbers.

    A whole number n takes the last n classes of the order that no earlier task took (the authors
    forget from the end), a fraction that share of all classes, at least one.

    Args:
        tasks: ``scenario.tasks``; what is no list of numbers is returned as it is.
        order: Of ``class_order``.

    Raises:
        ValueError: A number is out of range, numbers and names are mixed, or nothing is left.
    """
    if not isinstance(tasks, (list, tuple)) or not any(map(_is_number, tasks)):
        return tasks
    requests: list[list[str]] = []
    end = len(order)
    for index, size in enumerate(tasks):
        count = max(1, round(size * len(order))) if isinstance(size, float) else size
        if not _is_number(size) or count < 1 or (isinstance(size, float) and not 0 < size < 1):
            raise ValueError(
                f'scenario.tasks[{index}] is {size!r}; expected, as in the other tasks, a number '
                'of classes >= 1 or a share of them between 0 and 1. Names go into lists, for '
                "example ['dog'], in every task."
            )
        if count >= end:
            raise ValueError(
                f'scenario.tasks[{index}] is {size!r}, which are {count} classes, but only {end} '
                f'of {len(order)} are left, one of which must be retained.'
            )
        requests.append(list(order[end - count : end]))
        end -= count
    return requests


def missing_classes(
    missing: Any, order: Sequence[str], requested: Sequence[str]
) -> tuple[str, ...]:
    """The classes that are retained although no data of them is left, in label order's names.

    Args:
        missing: Their names, or a number n: the first n of the order.
        order: Of ``class_order``.
        requested: The classes of all tasks, which cannot be missing.

    Raises:
        ValueError: A name is unknown or twice there, is requested, or no retained class has data.
    """
    names = list(order[:missing]) if _is_count(missing, least=0) else missing
    if not isinstance(names, (list, tuple)):
        raise ValueError(
            f'scenario.missing is {missing!r}; expected a list of retained class names, or how '
            'many of the first classes of the order it is.'
        )
    for name in names:
        if name not in order:
            raise ValueError(
                f'scenario.missing names the class {name!r}, which the detector does not know.'
                f'{did_you_mean(name, order)}'
            )
        if name in requested:
            raise ValueError(
                f'scenario.missing names the class {name!r}, which a task forgets. Missing are '
                'classes that are retained without data.'
            )
    if len(set(names)) < len(names):
        raise ValueError(f'scenario.missing names a class twice: {", ".join(names)}.')
    if len(names) + len(requested) >= len(order):
        raise ValueError(
            f'scenario.missing takes all {len(names)} classes that are retained to the end; leave '
            'at least one whose data can be replayed.'
        )
    return tuple(names)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
