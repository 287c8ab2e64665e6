"""A request to forget classes, and the file that carries one.

A request file is JSON (``.json``) or YAML (``.yml``, ``.yaml``); only ``tasks`` is required::

    tasks: [[bag, sneaker], [trouser]]   # one list of class names per task, in their order
    steps: 80                            # optimiser steps per task; else the family's
    retain_images: 400                   # or retain_ratio: 0.1, or few_shot: 16
    seed: 42
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from mmforget.nearest import did_you_mean


@dataclass(frozen=True)
class ForgettingRequest:
    """Which classes go, in which order, and the few settings that matter.

    Attributes:
        tasks: Class names, one tuple per task; one list of names is one task.
        steps: Optimiser steps per task; ``None``: as many as the detector's family needs.
        retain_images: Images of the retain stream; without any of the three sizes: by family.
        retain_ratio: Or a share of the images that hold a retained class, in (0, 1].
        few_shot: Or k images of each class, in the retain stream and in the forget stream.
        seed: Decides every random draw.

    Raises:
        ValueError: A class is named twice, or a setting has another type or lies out of range.
    """

    tasks: tuple[tuple[str, ...], ...]
    steps: int | None = None
    retain_images: int | None = None
    retain_ratio: float | None = None
    few_shot: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        object.__setattr__(self, 'tasks', _read_tasks(self.tasks))
        for name, least in (('steps', 1), ('retain_images', 1), ('few_shot', 1), ('seed', 0)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f'{name} is {value!r}; expected a whole number, at least {least}.')
        ratio = self.retain_ratio
        if ratio is not None and (type(ratio) not in (int, float) or not 0 < ratio <= 1):
            raise ValueError(f'retain_ratio is {ratio!r}; expected a share in (0, 1].')
        sizes = {name: getattr(self, name) for name in ('retain_images', 'retain_ratio')}
        given = {k: v for k, v in (*sizes.items(), ('few_shot', self.few_shot)) if v is not None}
        if len(given) > 1:
            listed = ', '.join(f'{name}={value}' for name, value in given.items())
            raise ValueError(
                f'The request has {listed}; give at most one of retain_images, retain_ratio and '
                'few_shot, which all say how many images are retained.'
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all tasks."""
        return tuple(name for task in self.tasks for name in task)

    def forget_sampling(self, images: int) -> dict[str, Any]:
        """How the forget stream draws, as arguments of ``StreamSampling``.

        Args:
            images: How many where the request does not say.
        """
        if self.few_shot is not None:
            return {'shots': self.few_shot, 'balanced': True}
        return {'images': images}

    def retain_sampling(self, images: int) -> dict[str, Any]:
        """How the retain stream draws, as arguments of ``StreamSampling``.

        Args:
            images: How many where the request does not say.
        """
        if self.few_shot is not None:
            return {'shots': self.few_shot, 'balanced': True}
        if self.retain_ratio is not None:
            return {'ratio': float(self.retain_ratio)}
        return {'images': images if self.retain_images is None else self.retain_images}

    def check_classes(self, known: Sequence[str]) -> None:
        """Checks the names against the detector's label map.

        Raises:
            ValueError: A name is unknown (the message has the nearest known ones), or no class
                would be retained.
        """
        for name in self.classes:
            if name not in known:
                raise ValueError(
                    f'The class {name!r} is unknown.{did_you_mean(name, known)} The data set has: '
                    f'{", ".join(known)}.'
                )
        if set(known) <= set(self.classes):
            raise ValueError(
                f'The request names all {len(known)} classes, so nothing would be left to '
                'retain. Leave at least one out.'
            )


def read_request(path: str | Path) -> ForgettingRequest:
    """Reads a request file; see the module's docstring for its keys.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is neither JSON nor YAML, has an unknown key or a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'The request file {str(path)!r} does not exist.')
    if path.suffix not in ('.json', '.yml', '.yaml'):
        raise ValueError(
            f'The request file {str(path)!r} ends in {path.suffix!r}; expected .json, .yml or '
            '.yaml.'
        )
    text = path.read_text(encoding='utf-8')
    try:
        content = json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        kind = 'JSON' if path.suffix == '.json' else 'YAML'
        raise ValueError(f'{path} is no valid {kind}: {error}') from None
    known = [field.name for field in fields(ForgettingRequest)]
    if not isinstance(content, dict) or 'tasks' not in content:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f'{path} holds {found}; expected a mapping with the key tasks, for example '
            '{"tasks": [["bag", "sneaker"], ["trouser"]]}.'
        )
    for key in content:
        if key not in known:
            raise ValueError(
                f'{path} has the unknown key {key!r}.{did_you_mean(key, known)} Known keys: '
                f'{", ".join(known)}.'
            )
    try:
        return ForgettingRequest(**content)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def _read_tasks(tasks: Any) -> tuple[tuple[str, ...], ...]:
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or not tasks:
        raise ValueError(
            f'The classes to forget are {tasks!r}; expected a list of class names (one task) or '
            "a list of such lists (one per task), for example [['bag', 'sneaker'], ['trouser']]."
        )
    if all(isinstance(item, str) for item in tasks):
        tasks = [tasks]
    seen: dict[str, int] = {}
    for index, name in _names(tasks):
        if name in seen:
            where = f'task {seen[name] + 1}'
            where += '' if seen[name] == index else f' and in task {index + 1}'
            raise ValueError(f'The class {name!r} is asked for twice, in {where}. Name it once.')
        seen[name] = index
    return tuple(tuple(task) for task in tasks)


def _names(tasks: Sequence[Any]) -> Iterator[tuple[int, str]]:
    for index, task in enumerate(tasks):
        if isinstance(task, str) or not isinstance(task, Sequence) or not task:
            raise ValueError(
                f'Task {index + 1} is {task!r}; expected a list of at least one class name.'
            )
        for name in task:
            if not isinstance(name, str):
                # YAML reads a bare yes, no, on, off or number as something else.
                raise ValueError(
                    f'Task {index + 1} holds {name!r}, which is no text; expected a class name. '
                    'In YAML put it in quotes.'
                )
            yield index, name
