"""A room of the package imports from lower floors only."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmforget'
FLOORS = [
    {
        'version',
        'class_order',
        'compatibility',
        'data_elements',
        'digests',
        'nearest',
        'registry',
        'structures',
    },  # fmt: skip
    {'adapters', 'datasets', 'models', 'taps'},
    {'trainable', 'evaluation', 'methods', 'visualization'},
    {'engine'},
    {'apis', 'attacks', 'benchmarks', 'testing'},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = [
    path
    for path in sorted(PACKAGE.rglob('*.py'))
    if '.mim' not in path.parts and path.parent.name + path.name != 'mmforget__init__.py'
]


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_room_has_its_floor():
    assert {room_of(path) for path in FILES} - {'__main__'} <= set(FLOOR)


@pytest.mark.parametrize('room', sorted({room_of(path) for path in FILES} - {'__main__'}))
def test_imports_come_from_below(room):
    for path in FILES:
        if room_of(path) != room:
            continue
        for name in imports_of(path):
            parts = name.split('.')
            if parts[0] == 'mmforget' and parts[1] in FLOOR and parts[1] != room:
                assert FLOOR[parts[1]] <= FLOOR[room], f'{path}: {name}'
            assert room != 'adapters' or not parts[0].startswith(('mmengine', 'mmcv', 'mmdet'))


def test_rooms_make_no_circle():
    """Rooms of one floor may use one another, in one direction."""
    used = {room: set() for room in FLOOR}
    for path in FILES:
        for name in imports_of(path):
            parts = name.split('.')
            if parts[0] == 'mmforget' and parts[1] in FLOOR and room_of(path) in FLOOR:
                used[room_of(path)] |= {parts[1]} - {room_of(path)}
    TopologicalSorter(used).prepare()  # Raises CycleError, which names the rooms.


def test_the_core_names_no_detector():
    """Adapters, what is trained and the loop take any; families are told apart in the taps."""
    from mmforget.registry import TAPS

    TAPS.import_from_location()
    families = {name.lower() for name in TAPS.module_dict}
    backbones = {'resnet', 'swin', 'mobilenet', 'timmvit', 'mimdet', 'pvt'}
    names = families | backbones | {'detr', 'dino', 'rcnn', 'r-cnn', 'fcos', 'retinanet', 'yolo'}
    core = [path for path in FILES if room_of(path) in ('adapters', 'trainable', 'engine')]
    assert len(core) > 20
    for path in core:
        text = path.read_text().lower()
        assert [name for name in names if name in text] == [], path
