"""The images that the authors' detection code draws."""

import json
import random
from pathlib import Path

import pytest
from mmengine.dataset import ConcatDataset

from mmforget.datasets.authors_sampling import AnnotationOrder, annotation_order, authors_images
from mmforget.structures import StreamSampling

# 600 annotations of five categories on images with scattered ids.
IMAGE_IDS = [(i * 7919) % 4001 + 17 for i in range(600)]
LABELS = [i * i % 5 for i in range(600)]
ORDER = AnnotationOrder(IMAGE_IDS, LABELS, {i: i for i in IMAGE_IDS}, 'train.json')


def draw(labels, **size):
    return authors_images(ORDER, labels, StreamSampling(authors_seed=123, **size), 'retain')


# Drawn by the procedure of spec A.4 with CPython's random and set, outside of this package.
@pytest.mark.parametrize(
    ('labels', 'size', 'count', 'first', 'total'),
    [
        ([1], dict(ratio=0.1), 24, [185, 568, 732, 983, 1051, 1313], 53760),
        ([0, 4], dict(ratio=0.1), 36, [204, 304, 319, 368, 468, 766], 63186),
        ([1, 4], dict(shots=4), 8, [121, 200, 583, 881, 1798, 2292, 2628, 3703], 12206),
        ([0], dict(shots=200), 98, [17, 38, 70, 219, 251, 283], 196348),
    ],
)
def test_the_authors_images(labels, size, count, first, total):
    found = draw(labels, **size)
    assert (len(found), found[: len(first)], sum(found)) == (count, first, total)


def test_neither_the_global_generator_nor_the_order_of_classes_matters():
    random.seed(5)
    first, state = draw([0, 4], ratio=0.1), random.getstate()
    assert first == draw([4, 0, 0], ratio=0.1)
    assert random.getstate() == state


def test_more_shots_than_images_are_drawn_with_replacement():
    everything = sorted({i for i, label in zip(IMAGE_IDS, LABELS, strict=True) if label == 0})
    found = draw([0], shots=200)
    assert len(found) < len(everything) < 200
    assert set(found) < set(everything)


def test_the_file_is_read_in_its_own_order(make_dataset):
    dataset = make_dataset()
    order = annotation_order(dataset)
    annotations = json.loads(Path(dataset.ann_file).read_text())['annotations']
    assert order.image_ids == [a['image_id'] for a in annotations]
    assert order.labels[:4] == [0, 0, 1, 1]
    # Images without a known class are candidates of nothing; crowds count.
    assert order.places == {number: number - 1 for number in range(1, 13)}
    sampling = StreamSampling(ratio=1.0, authors_seed=123)
    assert authors_images(order, [1], sampling, 'forget') == [1, 2, 3, 4, 9]


def test_an_image_that_the_data_set_leaves_out_is_named(make_dataset):
    order = annotation_order(make_dataset())
    del order.places[4]
    with pytest.raises(ValueError, match=r'draws the image ids \[4\].*filter_empty_gt=False'):
        authors_images(order, [1], StreamSampling(ratio=1.0, authors_seed=123), 'forget')


def test_a_class_without_annotations_is_refused(make_dataset):
    with pytest.raises(ValueError, match='no annotation of its'):
        authors_images(
            annotation_order(make_dataset()), [3], StreamSampling(shots=1, authors_seed=1), 'retain'
        )


def test_several_files_are_refused(make_dataset):
    with pytest.raises(ValueError, match='expected one CocoDataset'):
        annotation_order(ConcatDataset([make_dataset(), make_dataset()]))


@pytest.mark.parametrize('other', [dict(balanced=True), dict(recurring=True)])
def test_other_ways_to_draw_are_refused(other):
    with pytest.raises(ValueError, match='authors_seed=123 together with'):
        StreamSampling(shots=2, authors_seed=123, **other)
