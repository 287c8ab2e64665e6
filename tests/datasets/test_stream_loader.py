"""The batches of a stream."""

from collections import Counter
from itertools import islice

import pytest
import torch
from mmengine.dataset import default_collate, worker_init_fn

from mmforget.datasets.stream_loader import StreamBatchSampler, build_stream_loader
from mmforget.datasets.streams import StreamDataset


def flat(batches):
    return [pair for batch in batches for pair in batch]


def test_epochs_are_complete_whatever_the_batch_size():
    for batch_size in (1, 3, 10, 25):
        sampler = StreamBatchSampler(10, batch_size, 7, 1, 'forget', num_steps=150)
        pairs = flat(sampler)
        assert len(pairs) == batch_size * 150
        for epoch in range(len(pairs) // 10):
            part = [position for position, _ in pairs[10 * epoch : 10 * epoch + 10]]
            assert sorted(part) == list(range(10))
        assert len({seed for _, seed in pairs}) == len(pairs)
        assert all(0 <= seed < 2**63 for _, seed in pairs)
    orders = {tuple(p for p, _ in pairs[10 * e : 10 * e + 10]) for e in range(20)}
    assert len(orders) == 20


def test_the_image_sequence_does_not_depend_on_the_batch_size():
    five = StreamBatchSampler(10, 5, 7, 1, 'forget', num_steps=6)
    three = StreamBatchSampler(10, 3, 7, 1, 'forget', num_steps=10)
    assert flat(five) == flat(three)


def test_resume_gives_the_tail():
    whole = list(StreamBatchSampler(10, 4, 7, 1, 'retain', num_steps=30))
    for start in (0, 1, 7, 29, 30):
        tail = StreamBatchSampler(10, 4, 7, 1, 'retain', start_step=start, num_steps=30)
        assert len(tail) == 30 - start
        assert list(tail) == whole[start:]
        assert list(tail) == whole[start:]


def test_batches_in_any_order():
    sampler = StreamBatchSampler(10, 4, 7, 1, 'retain', num_steps=30)
    whole = list(sampler)
    assert [sampler.batch(step) for step in (17, 2, 29, 3)] == [
        whole[step] for step in (17, 2, 29, 3)
    ]


def test_endless():
    sampler = StreamBatchSampler(3, 2, 7, 1, 'retain')
    assert len(list(islice(sampler, 100))) == 100
    with pytest.raises(TypeError, match='num_steps'):
        len(sampler)


def test_seed_task_and_stream_matter():
    keys = [(7, 1, 'forget'), (8, 1, 'forget'), (7, 2, 'forget'), (7, 1, 'retain')]
    runs = [StreamBatchSampler(50, 10, *key).batch(0) for key in keys]
    assert len({tuple(run) for run in runs}) == 4
    assert len({tuple(p for p, _ in run) for run in runs}) == 4


def test_ranks_split_the_global_batch():
    one = StreamBatchSampler(10, 6, 7, 1, 'retain', num_steps=20)
    ranks = [
        StreamBatchSampler(10, 2, 7, 1, 'retain', num_steps=20, rank=rank, world_size=3)
        for rank in range(3)
    ]
    for step, batch in enumerate(one):
        parts = [rank.batch(step) for rank in ranks]
        assert flat(parts) == batch
    # 20 steps of 6 are 12 epochs: each image is seen 12 times in all.
    seen = Counter(position for rank in ranks for position, _ in flat(rank))
    assert set(seen.values()) == {12}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'length': 0}, 'length=0'),
        ({'batch_size': 0}, 'batch_size=0'),
        ({'start_step': 9}, 'start_step=9 and num_steps=5'),
        ({'start_step': -1}, 'start_step=-1'),
        ({'rank': 2, 'world_size': 2}, 'rank=2'),
        ({'seed': -1}, 'seed=-1'),
    ],
)
def test_sampler_errors(change, message):
    arguments = {
        'length': 4, 'batch_size': 2, 'seed': 0, 'task': 0, 'stream': 'forget', 'num_steps': 5,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        StreamBatchSampler(**(arguments | change))


def make_loader(dataset, **config):
    stream = StreamDataset(dataset, [0, 1, 2, 6, 9], ['cat', 'dog'])
    sampler = StreamBatchSampler(len(stream), 3, 7, 1, 'forget', num_steps=4)
    return build_stream_loader(stream, sampler, **config)


def test_any_number_of_workers_gives_the_same_batches(dataset):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    runs = [
        list(make_loader(dataset, num_workers=workers, persistent_workers=True))
        for workers in (0, 1, 2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert [len(run) for run in runs] == [4, 4, 4]
    for run in runs[1:]:
        for batch, expected in zip(run, runs[0], strict=True):
            assert len(batch['inputs']) == 3
            for i in range(3):
                assert torch.equal(batch['inputs'][i], expected['inputs'][i])
                found, wanted = batch['data_samples'][i], expected['data_samples'][i]
                assert found.img_id == wanted.img_id
                assert torch.equal(found.gt_instances.labels, wanted.gt_instances.labels)
                assert torch.equal(
                    found.gt_instances.bboxes.tensor, wanted.gt_instances.bboxes.tensor
                )


def test_takes_an_ordinary_dataloader_config(dataset):
    stream = StreamDataset(dataset, [0, 1, 2, 6, 9], ['cat', 'dog'])
    loader = build_stream_loader(
        stream,
        StreamBatchSampler(len(stream), 3, 7, 1, 'forget', num_steps=4),
        dataset={'type': 'CocoDataset'},
        sampler={'type': 'DefaultSampler', 'shuffle': True},
        batch_sampler={'type': 'AspectRatioBatchSampler'},
        batch_size=2,
        drop_last=True,
        num_workers=0,
        persistent_workers=True,
        prefetch_factor=4,
        collate_fn={'type': 'pseudo_collate'},
        worker_init_fn={'type': worker_init_fn, 'num_workers': 0, 'rank': 0, 'seed': 1},
    )
    assert len(loader) == 4
    (first, *_) = loader
    assert len(first['inputs']) == 3


def test_collate_function_and_unknown_key(dataset):
    assert make_loader(dataset, collate_fn=default_collate).collate_fn is default_collate
    with pytest.raises(KeyError, match="'colate', which is not registered"):
        make_loader(dataset, collate_fn={'type': 'colate'})
    with pytest.raises(TypeError, match='num_wrkers'):
        make_loader(dataset, num_wrkers=2)


def variants(augmentations, steps, **changes):
    """Position -> the draws it got, in the order of the epochs."""
    arguments = {'length': 10, 'batch_size': 4, 'seed': 7, 'task': 1, 'stream': 'retain'}
    sampler = StreamBatchSampler(
        **(arguments | changes), num_steps=steps, augmentations=augmentations
    )
    found = {}
    for position, draw_seed in flat(sampler):
        found.setdefault(position, []).append(draw_seed)
    return found


def test_augmentations_are_drawn_in_advance_and_seen_in_turn():
    found = variants(3, 30)  # Twelve epochs.
    for draws in found.values():
        assert len(set(draws)) == 3 and draws == draws[:3] * 4
    assert len({seed for draws in found.values() for seed in draws}) == 30
    # More of them: the first ones are the same.
    assert all(draws[:3] == found[p][:3] for p, draws in variants(5, 30).items())


def test_fixed_augmentations_depend_on_seed_stream_and_image():
    found = variants(2, 30)
    for change in ({'seed': 8}, {'stream': 'forget'}, {'images': range(10, 20)}):
        others = variants(2, 30, **change)
        assert not {s for d in others.values() for s in d} & {s for d in found.values() for s in d}
    assert variants(2, 12, batch_size=10) == found
    # In another task the epochs have other orders, but an image keeps its variants.
    assert variants(2, 30, task=0) == found
    moved = variants(2, 30, task=0, images=range(9, -1, -1))
    assert {9 - position: draws for position, draws in moved.items()} == found


def test_resume_gives_the_tail_of_fixed_augmentations():
    whole = list(StreamBatchSampler(10, 4, 7, 1, 'retain', num_steps=30, augmentations=2))
    plain = list(StreamBatchSampler(10, 4, 7, 1, 'retain', num_steps=30))
    assert [p for p, _ in flat(whole)] == [p for p, _ in flat(plain)], 'the images stay the same'
    for start in (1, 7, 29):
        tail = StreamBatchSampler(
            10, 4, 7, 1, 'retain', start_step=start, num_steps=30, augmentations=2
        )
        assert list(tail) == whole[start:]


def test_an_image_has_no_more_variants_than_augmentations(dataset):
    """The real pipeline with flips, sizes and colours."""
    stream = StreamDataset(dataset, [0, 1, 2, 6, 9], ['cat', 'dog'])
    for augmentations, most in ((1, 1), (2, 2), (None, 8)):
        sampler = StreamBatchSampler(
            len(stream), 5, 7, 1, 'forget', num_steps=8, augmentations=augmentations
        )
        pixels = {}
        for batch in build_stream_loader(stream, sampler):
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                pixels.setdefault(sample.img_id, set()).add(image.numpy().tobytes())
        assert {len(found) for found in pixels.values()} == {most}


def test_no_augmentations_at_all_are_refused():
    with pytest.raises(ValueError, match='augmentations=0; expected a whole number >= 1'):
        StreamBatchSampler(10, 4, 7, 1, 'retain', augmentations=0)
