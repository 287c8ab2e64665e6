"""Preprocessed images, one of them with padding."""

import copy

import pytest


@pytest.fixture(scope='module')
def preprocess(tiny_batch):
    """``preprocess(model)``: inputs and samples of four images, one of them with padding."""
    batch = tiny_batch(4)
    batch['inputs'][1] = batch['inputs'][1][:, :48, :56]
    sample = batch['data_samples'][1]
    sample.set_metainfo({'img_shape': (48, 56)})
    sample.gt_instances.bboxes.clip_((48, 56))

    def run(model):
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        return data['inputs'], data['data_samples']

    return run
