"""Items are kept within a bound, and no caller changes what another one gets."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from mmforget.datasets.item_memory import ItemMemory
from mmforget.datasets.stream_loader import StreamBatchSampler, build_stream_loader
from mmforget.datasets.streams import StreamDataset


def item(value):
    sample = DetDataSample(metainfo={'img_id': value})
    sample.gt_instances = InstanceData(labels=torch.tensor([value]))
    return {'inputs': torch.full((100,), value, dtype=torch.uint8), 'data_samples': sample}


def test_the_bound_holds_and_the_oldest_leaves():
    memory = ItemMemory(10**6)
    memory.put(0, item(0))
    size = memory.bytes
    memory = ItemMemory(5 * size // 2)
    for value in (1, 2):
        memory.put(value, item(value))
    assert len(memory) == 2 and memory.bytes == 2 * size
    memory.get(1)
    memory.put(3, item(3))
    assert memory.bytes == 2 * size and memory.get(2) is None
    assert [int(memory.get(key)['inputs'][0]) for key in (1, 3)] == [1, 3]
    memory.put(4, {**item(4), 'inputs': torch.zeros(3 * size, dtype=torch.uint8)})
    assert memory.get(4) is None and len(memory) == 2


def test_masks_count_too():
    memory, plain, masked = ItemMemory(10**6), item(1), item(2)
    memory.put(1, plain)
    without = memory.bytes
    masks = BitmapMasks(np.zeros((1, 40, 50), dtype=np.uint8), 40, 50)
    masked['data_samples'].gt_instances.masks = masks
    memory.put(2, masked)
    assert memory.bytes == 2 * without + 40 * 50
    polygons = PolygonMasks([[np.zeros(8)], [np.zeros(6), np.zeros(10)]], 40, 50)
    masked = item(3)
    masked['data_samples'].gt_instances = InstanceData(masks=polygons)
    before = memory.bytes
    memory.put(3, masked)
    assert memory.bytes == before + 100 + 8 * 24


def test_what_is_done_to_an_item_is_not_remembered():
    memory, first = ItemMemory(10**6), item(1)
    memory.put(0, first)
    first['data_samples'].gt_instances.labels += 1
    second = memory.get(0)
    second['data_samples'].set_metainfo({'batch_input_shape': (1, 1)})
    second['data_samples'].gt_instances.labels += 1
    third = memory.get(0)
    assert third['data_samples'].gt_instances.labels.tolist() == [1]
    assert 'batch_input_shape' not in third['data_samples']
    assert third['inputs'] is first['inputs']


def test_pixels_that_were_written_to_are_loaded_anew():
    """As by a hook that draws on the batch."""
    memory = ItemMemory(10**6)
    memory.put(0, item(1))
    memory.get(0)['inputs'][:10] = 7
    assert memory.get(0) is None and len(memory) == memory.bytes == 0


def test_streams_with_a_memory_give_the_same_batches(dataset):
    """Also where two streams see other classes of the same images."""
    memory = ItemMemory(10**8)
    for classes in (['cat', 'dog'], ['cow', 'cat']):
        plain = StreamDataset(dataset, [1, 6, 9], classes)
        kept = StreamDataset(dataset, [1, 6, 9], classes, memory=memory)
        sampler = StreamBatchSampler(3, 2, 7, 0, 'retain', num_steps=6, augmentations=2)
        loaders = [build_stream_loader(stream, sampler) for stream in (plain, kept)]
        for batch, expected in zip(*loaders, strict=True):
            for found, wanted in zip(batch['inputs'], expected['inputs'], strict=True):
                assert torch.equal(found, wanted)
            samples = (batch['data_samples'], expected['data_samples'])
            for one, other in zip(*samples, strict=True):
                assert one.metainfo == other.metainfo
                assert torch.equal(one.gt_instances.labels, other.gt_instances.labels)
                assert torch.equal(one.gt_instances.bboxes.tensor, other.gt_instances.bboxes.tensor)
    assert len(memory) == 12
