"""Which images a stream draws."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

from mmforget.datasets import stream_sampling
from mmforget.datasets.stream_sampling import (
    StreamIndex,
    check_forget_classes,
    class_index,
    sample_images,
)
from mmforget.structures import ForgettingScenario, StreamSampling


def make_index(counts, num_images=400, seed=0):
    """An index with ``counts`` images per class, drawn at random, so that they overlap."""
    rng = np.random.default_rng(seed)
    images_of = {
        name: np.sort(rng.choice(num_images, count, replace=False)).astype(np.int64)
        for name, count in counts.items()
    }
    return StreamIndex(tuple(counts), images_of, num_images, 'train.json')


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(
        stream_sampling, 'print_log', lambda message, **kwargs: messages.append(message)
    )
    return messages


@pytest.mark.parametrize('serialize_data', [True, False])
@pytest.mark.parametrize('lazy_init', [True, False])
def test_candidates_count_crowds_and_mixed_images(make_dataset, serialize_data, lazy_init):
    index = class_index(make_dataset(serialize_data=serialize_data, lazy_init=lazy_init))
    assert index.classes == ('cat', 'dog', 'cow', 'owl')
    assert index.num_images == 12
    assert index.candidates(['cat']).tolist() == [0, 1, 6]
    assert index.candidates(['dog']).tolist() == [1, 2, 3, 4, 9]
    assert index.candidates(['cow', 'cat']).tolist() == [0, 1, 4, 6, 7, 8, 9, 10]
    assert index.candidates(['owl']).tolist() == []


def test_candidates_follow_the_filtered_data_set(make_dataset):
    index = class_index(make_dataset(filter_cfg={'filter_empty_gt': True}))
    assert index.num_images == 10
    assert index.candidates(['cow']).tolist() == [4, 5, 6, 7, 8, 9]


def test_wrappers(make_dataset):
    plain = make_dataset()
    other = make_dataset(folder='b', images=[('owl',), ('cat',)], start=50)
    assert class_index(RepeatDataset(plain, 3)).num_images == 12
    index = class_index(ConcatDataset([plain, other]))
    assert index.num_images == 14
    assert index.candidates(['owl', 'cat']).tolist() == [0, 1, 6, 12, 13]
    with pytest.raises(TypeError, match='ClassBalancedDataset.*train_dataloader.dataset'):
        class_index(ClassBalancedDataset(plain, 0.1))


def test_multi_image_wrapper_is_refused(dataset):
    from mmdet.datasets import MultiImageMixDataset

    with pytest.raises(TypeError, match='MultiImageMixDataset'):
        class_index(MultiImageMixDataset(dataset, []))


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (('dog', 'cat', 'cow', 'owl'), "Label 0 is 'dog' in metainfo.classes but 'cat' in"),
        (('cat', 'dog', 'cow', 'owl', 'fox'), '4 of the 5 classes.*missing: fox'),
        (
            ('bat', 'fox'),
            '0 of the 2 classes.*missing: bat, fox; the file names cat, dog, cow, owl',
        ),
    ],
)
def test_label_map_that_would_rename_classes(make_dataset, classes, message):
    with pytest.raises(ValueError, match=message):
        class_index(make_dataset(metainfo={'classes': classes}))


def test_label_map_check_finds_the_right_categories(make_dataset):
    dataset = make_dataset(metainfo={'classes': ('dog', 'cat', 'cow', 'owl')})
    with open(dataset.ann_file) as file:
        coco = json.load(file)
    coco['info'] = {'about': 'categories', 'categories': 4, 'more': [{'categories': [{'a': 1}]}]}
    with open(dataset.ann_file, 'w') as file:
        json.dump(coco, file, indent=1)
    with pytest.raises(ValueError, match="Label 0 is 'dog'"):
        class_index(dataset)


def test_label_map_of_a_subset_in_the_files_order(make_dataset):
    index = class_index(make_dataset(metainfo={'classes': ('cat', 'cow')}))
    assert index.candidates(['cow']).tolist() == [4, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ('sampling', 'size'),
    [
        (StreamSampling(images=7), 7),
        (StreamSampling(ratio=0.1), 15),
        (StreamSampling(ratio=0.001), 1),
        (StreamSampling(ratio=1.0), 150),
        (StreamSampling(shots=8), 16),
    ],
)
def test_joint_sizes(sampling, size, warnings):
    index = make_index({'a': 150, 'b': 1})
    index.images_of['b'] = index.images_of['a'][:1]
    drawn = sample_images(index, ['a', 'b'], sampling, 1, 0, 'retain')
    assert len(drawn) == len(set(drawn)) == size
    assert drawn == sorted(drawn)
    assert set(drawn) <= set(index.candidates(['a', 'b']).tolist())
    assert not warnings


def test_too_many_images_take_all_and_warn_once(warnings):
    index = make_index({'a': 5, 'b': 5}, num_images=40)
    everything = index.candidates(['a', 'b']).tolist()
    assert sample_images(index, ['a', 'b'], StreamSampling(shots=30), 1, 0, 'f') == everything
    assert len(warnings) == 1
    assert '60 images' in warnings[0]


def test_absent_class_warns(warnings):
    index = make_index({'a': 5, 'b': 0}, num_images=40)
    assert len(sample_images(index, ['a', 'b'], StreamSampling(images=2), 1, 0, 'f')) == 2
    assert len(warnings) == 1
    assert 'no image of b' in warnings[0]


def test_a_class_to_forget_needs_an_image(dataset):
    """One image is enough, and a retained class may have none."""
    index = class_index(dataset)
    check_forget_classes(index, ForgettingScenario.from_requests([['cat'], ['cow']], index.classes))
    scenario = ForgettingScenario.from_requests([['cat'], ['dog', 'owl']], index.classes)
    message = (
        r"tasks\[1\] names the class 'owl', of which .*ann.json holds no image.*cat, dog, cow\."
    )
    with pytest.raises(ValueError, match=message):
        check_forget_classes(index, scenario)


def test_draw_depends_on_seed_task_and_stream_only():
    index = make_index({'a': 150, 'b': 200, 'c': 9})
    size = StreamSampling(images=20)
    base = sample_images(index, ['a', 'c'], size, 1, 0, 'retain')
    assert sample_images(index, ('c', 'a', 'a'), size, 1, 0, 'retain') == base
    others = [
        sample_images(index, ['a', 'c'], size, *key)
        for key in [(2, 0, 'retain'), (1, 1, 'retain'), (1, 0, 'forget')]
    ]
    assert all(other != base for other in others)
    assert set(base) < set(
        sample_images(index, ['a', 'c'], StreamSampling(images=30), 1, 0, 'retain')
    )


HASH_SEED_SCRIPT = """
import json, sys, types
# The package's __init__ would import MMDetection, which takes seconds.
for name in ('mmforget', 'mmforget.datasets'):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [sys.argv[1] + '/' + name.replace('.', '/')]
import numpy as np
from mmforget.datasets.stream_sampling import StreamIndex, sample_images
from mmforget.structures import StreamSampling
images_of = {c: np.arange(i, 300, i + 2) for i, c in enumerate('abcdefgh')}
index = StreamIndex(tuple('abcdefgh'), images_of, 300, 'x')
print(json.dumps([
    sample_images(index, set('hgfd'), StreamSampling(shots=3, balanced=b), 5, 2, 'forget')
    for b in (False, True)
]))
"""


def test_recurring_images_come_again_in_the_next_task():
    """As far as they are candidates there; a task on its own draws like any other."""
    index = make_index({'a': 120, 'b': 150, 'c': 90, 'd': 60})
    sampling = StreamSampling(images=60, recurring=True)
    first = sample_images(index, ['b', 'c', 'd'], sampling, 3, 0, 'retain')
    second = sample_images(index, ['c', 'd'], sampling, 3, 1, 'retain')
    again = set(first) & set(index.candidates(['c', 'd']).tolist())
    assert again <= set(second) and len(again) > 30
    assert len(first) == len(second) == 60 and first == sorted(first)
    assert set(first) <= set(index.candidates(['b', 'c', 'd']).tolist())
    drawn_anew = sample_images(index, ['c', 'd'], StreamSampling(images=60), 3, 1, 'retain')
    assert len(set(drawn_anew) & set(first)) < len(again)
    assert sample_images(index, ['c', 'd'], sampling, 4, 1, 'retain') != second
    assert sample_images(index, ['c', 'd'], sampling, 3, 1, 'forget') != second
    # Nested, and each image as likely as any other.
    assert set(
        sample_images(index, ['c', 'd'], StreamSampling(images=30, recurring=True), 3, 1, 'retain')
    ) < set(second)
    counts = np.zeros(400)
    for seed in range(600):
        counts[
            sample_images(
                index, ['a'], StreamSampling(images=40, recurring=True), seed, 0, 'retain'
            )
        ] += 1
    drawn = counts[index.images_of['a']]
    assert drawn.min() > 140 and drawn.max() < 260  # 200 on average, standard deviation 11.5.


def test_draw_is_the_same_under_another_hash_seed():
    root = os.path.dirname(os.path.dirname(os.path.dirname(stream_sampling.__file__)))
    output = subprocess.run(
        [sys.executable, '-c', HASH_SEED_SCRIPT, root],
        env={**os.environ, 'PYTHONHASHSEED': '77'},
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout
    images_of = {c: np.arange(i, 300, i + 2) for i, c in enumerate('abcdefgh')}
    index = StreamIndex(tuple('abcdefgh'), images_of, 300, 'x')
    here = [
        sample_images(index, set('hgfd'), StreamSampling(shots=3, balanced=b), 5, 2, 'forget')
        for b in (False, True)
    ]
    assert json.loads(output) == here
    # A change here changes every published run.
    assert here == FROZEN


FROZEN = [
    [14, 28, 40, 88, 124, 133, 183, 188, 254, 278, 295, 299],
    [14, 28, 88, 124, 254, 278, 295, 299],
]


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('shots', [1, 4, 16])
def test_balanced_shots_reach_every_class(shots, seed, warnings):
    counts = {'common': 380, 'a': 90, 'b': 40, 'c': 12, 'rare': 3}
    index = make_index(counts, seed=seed)
    drawn = sample_images(
        index, list(counts), StreamSampling(shots=shots, balanced=True), seed, 1, 'retain'
    )
    assert len(drawn) == len(set(drawn)) <= shots * len(counts)
    for name, count in counts.items():
        assert len(set(drawn) & set(index.images_of[name].tolist())) >= min(shots, count)
    assert len(warnings) == (shots > 3)


@pytest.mark.parametrize('images', [3, 10, 63, 200])
def test_balanced_images_share_equally_and_fill_up(images):
    counts = {'common': 380, 'a': 90, 'b': 40, 'rare': 5}
    index = make_index(counts)
    sampling = StreamSampling(images=images, balanced=True)
    drawn = sample_images(index, list(counts), sampling, 3, 1, 'forget')
    assert len(drawn) == images
    share = images // len(counts)
    for name, count in counts.items():
        assert len(set(drawn) & set(index.images_of[name].tolist())) >= min(share, count)


def test_balanced_takes_all_when_asked_for_more():
    index = make_index({'a': 5, 'b': 9}, num_images=60)
    sampling = StreamSampling(images=500, balanced=True)
    everything = index.candidates(['a', 'b']).tolist()
    assert sample_images(index, ['a', 'b'], sampling, 3, 1, 'forget') == everything
    sampling = StreamSampling(ratio=1.0, balanced=True)
    assert sample_images(index, ['a', 'b'], sampling, 3, 1, 'forget') == everything


def test_errors(dataset):
    index = class_index(dataset)
    one = StreamSampling(images=1)
    with pytest.raises(ValueError, match="'owl'") as error:
        sample_images(index, ['owl'], one, 0, 0, 'forget')
    assert dataset.ann_file in str(error.value)
    with pytest.raises(ValueError, match="unknown classes 'fox'"):
        sample_images(index, ['fox'], one, 0, 0, 'forget')
    with pytest.raises(ValueError, match='at least one name'):
        sample_images(index, [], one, 0, 0, 'forget')
    with pytest.raises(ValueError, match='in a list'):
        sample_images(index, 'cat', one, 0, 0, 'forget')
    with pytest.raises(ValueError, match='seed=-1'):
        sample_images(index, ['cat'], one, -1, 0, 'forget')
