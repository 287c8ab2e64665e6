"""Copies of samples are independent, field by field."""

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmforget.data_elements import independent


def sample():
    found = DetDataSample(metainfo={'img_shape': (4, 6), 'img_id': 3})
    found.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.rand(2, 4)), labels=torch.arange(2), metainfo={'kind': 'box'}
    )
    return found


def test_a_copy_has_what_the_original_has():
    original = sample()
    copied = independent(original)
    assert type(copied) is DetDataSample and copied.metainfo == original.metainfo
    assert copied.keys() == original.keys()
    assert copied.gt_instances.metainfo == {'kind': 'box'}
    assert copied.gt_instances.labels is original.gt_instances.labels


def test_what_is_set_on_the_copy_is_not_set_on_the_original():
    original = sample()
    copied = independent(original)
    copied.set_metainfo({'img_shape': (1, 1), 'pad_shape': (8, 8)})
    copied.gt_instances.bboxes = copied.gt_instances.bboxes.tensor
    copied.gt_instances.scores = torch.ones(2)
    del copied.gt_instances.labels
    copied.pred_instances = InstanceData()
    assert original.metainfo == {'img_shape': (4, 6), 'img_id': 3}
    assert set(original.gt_instances.keys()) == {'bboxes', 'labels'}
    assert isinstance(original.gt_instances.bboxes, HorizontalBoxes)
    assert 'pred_instances' not in original
