"""All streams of a scenario over annotations as uneven as COCO's."""

import pytest
from mmdet.datasets import CocoDataset

from mmforget.datasets.annotation_checks import check_categories
from mmforget.datasets.image_checks import check_stream_images
from mmforget.datasets.stream_sampling import check_forget_classes, class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.structures import ForgettingScenario, StreamSampling
from mmforget.testing import write_large_coco
from mmforget.testing.large_coco import CLASSES

# Five classes a task; 45 are retained to the end.
TASKS = [list(CLASSES[first : first + 5]) for first in range(0, 35, 5)]
JOINT = {'forget': StreamSampling(ratio=0.1), 'retain': StreamSampling(ratio=0.1)}
BALANCED = {
    'forget': StreamSampling(images=2000, balanced=True),
    'retain': StreamSampling(images=8000, balanced=True),
}


def read(path):
    config = {
        'type': CocoDataset,
        'ann_file': str(path),
        'data_prefix': {'img': str(path.parent / 'images') + '/'},
        'pipeline': [{'type': 'LoadImageFromFile'}],
        'filter_cfg': {'filter_empty_gt': False},
    }
    check_categories(config)
    options = {key: value for key, value in config.items() if key != 'type'}
    return CocoDataset(**options)


def all_streams(dataset, samplings):
    """What the loop does with a data set before any work."""
    index = class_index(dataset)
    scenario = ForgettingScenario.from_requests(TASKS, index.classes)
    check_forget_classes(index, scenario)
    streams = []
    for task in scenario.tasks:
        for name, sampling in samplings.items():
            classes = task.classes if name == 'forget' else task.retained
            images = sample_images(index, classes, sampling, 3, task.index, name)
            streams.append(StreamDataset(dataset, images, classes, sampling.unlabelled))
    found = {int(image) for stream in streams for image in stream.image_indices}
    check_stream_images(dataset, sorted(found))
    return streams


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    path = write_large_coco(tmp_path_factory.mktemp('thousand'), images=1000, boxes=7300)
    return read(path)


@pytest.mark.parametrize('samplings', [JOINT, BALANCED], ids=['joint', 'balanced'])
def test_streams_hold_what_they_are_for(thousand, samplings):
    """Against the annotations themselves, image by image."""
    streams = all_streams(thousand, samplings)
    assert len(streams) == 14
    labels = [
        {instance['bbox_label'] for instance in thousand.get_data_info(image)['instances']}
        for image in range(len(thousand))
    ]
    for stream in streams:
        assert all(labels[image] & stream.labels for image in stream.image_indices)
        candidates = sum(bool(found & stream.labels) for found in labels)
        wanted = int(0.1 * candidates) if samplings is JOINT else candidates
        assert len(stream) == wanted


def balanced_by_hand(images_of, order, quota, fill):
    """The rule of ``sample_images``, one image after the other."""
    classes = sorted(images_of, key=len)
    counts, chosen = [0] * len(classes), []

    def take(label):
        for image in order:
            if image in classes[label] and image not in chosen:
                chosen.append(image)
                for other, images in enumerate(classes):
                    counts[other] += image in images
                return True
        return False

    for label in range(len(classes)):
        while counts[label] < quota and take(label):
            pass
    left = set(range(len(classes)))
    while len(chosen) < fill:
        label = min(left, key=lambda label: (counts[label], label))
        if not take(label):
            left.remove(label)
    return sorted(chosen)


@pytest.mark.parametrize('size', [7, 23, 60, 200])
def test_the_balanced_draw_follows_its_rule(tmp_path, size):
    from mmforget.datasets.stream_seeds import Purpose, permutation, seed_sequence

    path = write_large_coco(tmp_path, images=120, boxes=500, image_files=False)
    index = class_index(read(path))
    for classes in (CLASSES[:6], CLASSES[10:40]):
        classes = [name for name in classes if len(index.images_of[name])]
        sampling = StreamSampling(images=size, balanced=True)
        found = sample_images(index, classes, sampling, 5, 1, 'retain')
        candidates = index.candidates(classes)
        seeds = seed_sequence(Purpose.SAMPLE, 5, 1, 'retain')
        order = candidates[permutation(len(candidates), seeds)]
        by_class = [set(index.images_of[name].tolist()) for name in classes]
        fill = min(size, len(candidates))
        assert found == balanced_by_hand(by_class, order.tolist(), size // len(classes), fill)
