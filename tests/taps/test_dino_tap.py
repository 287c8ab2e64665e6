"""DINO without denoising: the decoder's own losses, and the trunk of Deformable DETR."""

import copy

import pytest
import torch
from mmdet.models.dense_heads import DETRHead
from tiny_detectors import base_model

from mmforget.taps import DINOTap, Stream, StreamOptions, TrunkCache, build_tap


@pytest.fixture(scope='module')
def dino(build_tiny):
    # Of images as small as these, the encoder proposes 20.
    return build_tiny(base_model('dino_mobilenetv2') | {'num_queries': 10})


def forward(model, cache, data):
    inputs, samples = data
    streams = {
        n: Stream(slice(i, i + 2), StreamOptions()) for n, i in (('forget', 0), ('retain', 2))
    }
    tap = build_tap(model, cache)
    assert isinstance(tap, DINOTap)
    return tap.forward(inputs, copy.deepcopy(samples), streams)


def test_losses_are_those_of_the_matching_part(dino, preprocess):
    """MMDetection's losses with denoising queries left out by a generator that makes none."""
    inputs, samples = data = preprocess(dino)
    dino.eval().training = True
    outputs = forward(dino, None, data)
    assert dino.training
    for name, part in (('forget', slice(0, 2)), ('retain', slice(2, 4))):
        own = samples[part]
        features = dino.extract_feat(inputs[part])
        dino.training = False
        head_inputs = dino.forward_transformer(features, own)
        dino.training = True
        scores, boxes = dino.bbox_head(**head_inputs)
        want = DETRHead.loss_by_feat(
            dino.bbox_head,
            scores[-1:],
            boxes[-1:],
            [sample.gt_instances for sample in own],
            [sample.metainfo for sample in own],
        )
        assert outputs[name].losses.keys() == want.keys() == {'loss_cls', 'loss_bbox', 'loss_iou'}
        for key, value in want.items():
            torch.testing.assert_close(outputs[name].losses[key], value)


@pytest.mark.parametrize(
    ('trained', 'cut'),
    [('encoder.layers.1', 'features'), ('decoder.layers.2.ffn', 'decoder.2.attention')],
)
def test_the_trunk_changes_no_loss(dino, preprocess, trained, cut):
    model = copy.deepcopy(dino).requires_grad_(False)
    model.get_submodule(trained).requires_grad_(True)
    model.train()
    for module in build_tap(model).trunk():
        module.eval()
    assert build_tap(model).frozen_stages()[-1] == cut
    cache = TrunkCache(2**28)
    data = preprocess(model)
    want = forward(model, None, data)
    for _ in range(2):
        found = forward(model, cache, data)
        for name in want:
            for key, value in want[name].losses.items():
                torch.testing.assert_close(found[name].losses[key], value, rtol=1e-5, atol=1e-6)
    assert len(cache)


def test_images_are_looked_at_ahead_in_training_mode(dino, preprocess):
    model = copy.deepcopy(dino).requires_grad_(False)
    model.decoder.layers[2].ffn.requires_grad_(True)
    model.train()
    cache = TrunkCache(2**28)
    cache.images_at_once = 4
    tap = build_tap(model, cache)
    inputs, samples = preprocess(model)
    assert all(map(tap.remembers, tap.look_ahead(inputs, samples)))
