"""Annotation files without categories, and boxes outside their images."""

import json
import re
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import RepeatDataset

from mmforget.datasets import annotation_checks
from mmforget.datasets.annotation_checks import check_categories, checked_boxes, checked_filter

INSIDE = [4, 5, 9, 12]
BOXES = {
    'right': [50, 5, 4, 4],
    'below': [5, 40, 4, 4],
    'left': [-20, 5, 20, 4],
    'above': [5, -9, 4, 8],
}


@pytest.fixture
def ann_file(make_dataset):
    """An annotation file that can be edited; images are 50 x 40 and larger."""
    return Path(make_dataset().ann_file)


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(
        annotation_checks, 'print_log', lambda message, **kwargs: messages.append(message)
    )
    return messages


def edit(ann_file, change):
    with open(ann_file) as file:
        document = json.load(file)
    change(document)
    with open(ann_file, 'w') as file:
        json.dump(document, file)


def set_box(ann_file, box, number=0):
    def change(document):
        document['annotations'][number].update(bbox=box, area=box[2] * box[3])

    edit(ann_file, change)


def read(ann_file):
    with checked_boxes():
        return CocoDataset(
            ann_file=str(ann_file),
            metainfo={'classes': ('cat', 'dog', 'cow', 'owl')},
            data_prefix={'img': ''},
        )


@pytest.mark.parametrize(
    'change',
    [
        lambda document: document.pop('categories'),
        lambda document: document.update(categories=[]),
        lambda document: document.update(categories=None, info={'categories': 'none'}),
    ],
)
def test_a_file_without_categories(ann_file, change):
    config = {'type': 'CocoDataset', 'ann_file': str(ann_file)}
    check_categories(config)
    edit(ann_file, change)
    message = f'{re.escape(str(ann_file))} has no categories: expected a COCO.*add the categories'
    for given in (
        config,
        {'type': CocoDataset, 'data_root': str(ann_file.parent), 'ann_file': ann_file.name},
        {'type': 'RepeatDataset', 'times': 2, 'dataset': config},
        {'type': 'ConcatDataset', 'datasets': [{'type': 'CocoDataset'}, config]},
    ):
        with pytest.raises(ValueError, match=message):
            check_categories(given)


def test_an_empty_file_has_no_categories(tmp_path):
    (tmp_path / 'empty.json').write_text('')
    config = {'type': 'CocoDataset', 'data_root': str(tmp_path), 'ann_file': 'empty.json'}
    with pytest.raises(ValueError, match='empty.json has no categories'):
        check_categories(config)


def test_what_is_no_local_coco_file_is_left_alone(tmp_path):
    (tmp_path / 'names.txt').write_text('000001')
    (tmp_path / 'other.json').write_text('{}')
    for config in (
        None,
        {'type': 'XMLDataset', 'ann_file': str(tmp_path / 'other.json')},
        {'type': 'CocoDataset', 'ann_file': str(tmp_path / 'names.txt')},
        {'type': 'CocoDataset', 'ann_file': 's3://bucket/ann.json'},
        {'type': 'NoSuchDataset', 'ann_file': str(tmp_path / 'other.json')},
    ):
        check_categories(config)


@pytest.mark.parametrize('box', BOXES.values(), ids=BOXES)
@pytest.mark.parametrize('lazy', [False, True])
def test_a_box_outside_its_image(ann_file, box, lazy):
    set_box(ann_file, box)
    original = CocoDataset.parse_data_info
    message = (
        rf'1 boxes lie outside their images \({re.escape(str(ann_file))}, annotation 100: bbox '
        rf"{re.escape(str(box))} on '0001.png', which is 50 x 40 pixels\); expected "
        r'\[x, y, width, height\].*Mend or delete'
    )
    with pytest.raises(ValueError, match=message), checked_boxes():
        dataset = CocoDataset(ann_file=str(ann_file), data_prefix={'img': ''}, lazy_init=lazy)
        RepeatDataset(dataset, 2)
    assert CocoDataset.parse_data_info is original


def test_boxes_that_reach_over_the_edge_are_read_as_ever(ann_file, warnings):
    """MMDetection itself clips them; boxes without area, which it drops, are no matter of ours."""
    for number, box in enumerate(([-4, 5, 9, 12], [44, 30, 11, 12], [100, 100, 0, 5], INSIDE)):
        set_box(ann_file, box, number)
    assert [len(read(ann_file).get_data_info(i)['instances']) for i in range(3)] == [1, 1, 1]
    assert not warnings


def test_corners_in_place_of_width_and_height_are_warned_of_once(ann_file, warnings):
    set_box(ann_file, [30, 20, 45, 35])
    set_box(ann_file, [1, 20, 9, 60], 1)
    read(ann_file)
    assert len(warnings) == 1
    assert '2 boxes have their centre outside' in warnings[0]
    assert "bbox [30, 20, 45, 35] on '0001.png'" in warnings[0]
    assert 'not [x1, y1, x2, y2]' in warnings[0]


def test_an_error_of_the_data_set_itself_passes_through(ann_file):
    original = CocoDataset.parse_data_info
    edit(ann_file, lambda document: document['images'][0].pop('height'))
    with pytest.raises(KeyError, match='height'):
        read(ann_file)
    assert CocoDataset.parse_data_info is original


def test_what_mmdetection_leaves_out_is_left_alone(ann_file):
    """Boxes of crowds, and of categories that are no class of the detector."""

    def change(document):
        document['annotations'][0].update(bbox=BOXES['right'], iscrowd=1)
        document['categories'].append({'id': 99, 'name': 'yak'})
        document['annotations'][1].update(bbox=BOXES['right'], category_id=99)

    edit(ann_file, change)
    read(ann_file)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'filter_cfg': {'min_size': 500}}, "'min_size': 500.*; 4 of the 4 classes .*shorter side"),
        (
            {'metainfo': {'classes': ('Cat', 'Dog')}, 'filter_cfg': {'filter_empty_gt': True}},
            '0 of the 2 classes .*Cat, Dog.*named as in the file',
        ),
    ],
)
def test_no_image_is_left(ann_file, options, message):
    metainfo = {'classes': ('cat', 'dog', 'cow', 'owl')}
    with pytest.raises(ValueError, match=message), checked_filter():
        CocoDataset(
            **{
                'ann_file': str(ann_file),
                'data_prefix': {'img': ''},
                'metainfo': metainfo,
                **options,
            }
        )
    read(ann_file)  # Nothing of it stays.
