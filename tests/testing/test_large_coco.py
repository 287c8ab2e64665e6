"""The large annotation file holds what it promises."""

import json
from collections import Counter

import cv2

from mmforget.testing import write_large_coco
from mmforget.testing.large_coco import CLASSES


def test_what_is_written(tmp_path):
    path = write_large_coco(tmp_path, images=300, boxes=2500)
    document = json.loads(path.read_text())
    assert [category['name'] for category in document['categories']] == list(CLASSES)
    assert len({category['id'] for category in document['categories']}) == 80
    sizes = {image['id']: (image['width'], image['height']) for image in document['images']}
    assert len(sizes) == 300 and len(document['annotations']) == 2500
    for annotation in document['annotations']:
        x, y, width, height = annotation['bbox']
        right, bottom = sizes[annotation['image_id']]
        assert 0 <= x < x + width <= right + 0.02 and 0 <= y < y + height <= bottom + 0.02
        assert width > 0 and height > 0
    counts = Counter(annotation['category_id'] for annotation in document['annotations'])
    common, *_, rare = counts.most_common()
    assert common[1] > 20 * rare[1]
    for image in document['images'][:4]:
        pixels = cv2.imread(str(tmp_path / 'images' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
    assert not list(tmp_path.glob('*.tmp'))


def test_a_function_of_its_arguments(tmp_path):
    files = [
        write_large_coco(tmp_path / name, images=50, boxes=200, seed=seed, image_files=False)
        for name, seed in (('a', 0), ('b', 0), ('c', 1))
    ]
    first, second, other = (file.read_text() for file in files)
    assert first == second != other
    assert not (tmp_path / 'a' / 'images').exists()
