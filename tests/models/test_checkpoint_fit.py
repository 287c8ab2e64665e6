"""A checkpoint that would leave a part of the detector random is refused."""

import copy

import pytest
import torch

from mmforget.models import checkpoint_fit
from mmforget.models.checkpoint_fit import check_fit
from mmforget.testing import tiny_detector

HEAD = 'bbox_head.cls_branches.0.weight'
FFN = 'encoder.layers.0.ffn.layers.0.0.weight'


@pytest.fixture
def model(build_tiny):
    return build_tiny()


@pytest.fixture
def state(model):
    return copy.deepcopy(model.state_dict())


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(
        checkpoint_fit, 'print_log', lambda message, **kwargs: messages.append(message)
    )
    return messages


def check(model, state):
    check_fit(model, {'state_dict': state, 'meta': {}}, 'base.pth')


def test_a_checkpoint_that_fits(model, state, warnings):
    check(model, state)
    check_fit(model, state, 'base.pth')  # A bare state dict, which MMEngine takes as well.
    check_fit(model, {f'module.{key}': value for key, value in state.items()}, 'base.pth')
    check(model, {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')})
    assert not warnings


@pytest.mark.parametrize(
    'lost',
    [HEAD, FFN, 'level_embed', 'backbone.conv1.conv.weight', 'backbone.conv1.bn.running_var'],
)
def test_a_missing_weight(model, state, lost):
    del state[lost]
    with pytest.raises(ValueError, match=f'base.pth does not fit.* 1 tensors missing: {lost}. Exp'):
        check(model, state)


def test_another_number_of_classes(model, build_tiny):
    """Both shapes are named, and how to mend it."""
    head = {**tiny_detector()['bbox_head'], 'num_classes': 4}
    other = build_tiny(bbox_head=head).state_dict()
    message = r'of another shape: bbox_head.cls_branches.0.weight \(4, 16\) instead of \(10, 16\)'
    with pytest.raises(ValueError, match=message) as caught:
        check(model, other)
    assert 'take the model (num_classes' in str(caught.value)


def test_a_deeper_detector(model, build_tiny):
    """Weights of layers that the config lacks would be left out in silence."""
    config = tiny_detector()
    config['encoder']['num_layers'] = 3
    deeper = build_tiny(config)
    with pytest.raises(
        ValueError, match=r'unexpected: encoder.layers.2.*, encoder.layers.2.*, .* and \d+ more'
    ):
        check(model, deeper.state_dict())
    with pytest.raises(ValueError, match=r'\d+ tensors missing: encoder.layers.2.* and \d+ more'):
        check(deeper, model.state_dict())


def test_a_two_stage_detector(model, build_tiny):
    two_stage = build_tiny(as_two_stage=True)
    with pytest.raises(ValueError, match='missing: .*query_embedding.weight'):
        check(model, two_stage.state_dict())


def test_a_checkpoint_of_something_else(model):
    with pytest.raises(ValueError, match=r'missing: level_embed, .* and \d+ more'):
        check(model, {'fc.weight': torch.ones(3)})


def test_what_the_detector_does_not_need_is_only_logged(model, state, warnings):
    state['mask_head.convs.0.weight'] = torch.ones(3)
    state['backbone.fc.weight'] = torch.ones(3)
    check(model, state)
    assert len(warnings) == 1
    assert '2 tensors have no counterpart' in warnings[0]
    assert 'mask_head.convs.0.weight' in warnings[0] and 'backbone.fc.weight' in warnings[0]


def test_adapters_that_were_not_folded_are_not_left_out(model, state):
    state['encoder.layers.0.ffn.layers.0.0.lora_B'] = torch.ones(32, 2)
    with pytest.raises(ValueError, match='1 tensors unexpected: encoder.layers.0.ffn.*lora_B'):
        check(model, state)


def test_weights_that_are_not_finite(model, state):
    state[FFN][0, 0] = float('nan')
    state[HEAD][0, 0] = float('inf')
    with pytest.raises(ValueError, match=f'NaN or infinity in ({FFN}, {HEAD}|{HEAD}, {FFN}); exp'):
        check(model, state)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'base.pth holds no .*weights but list; expected a dict of tensors'),
        (torch.ones(2), 'but Tensor'),
        ({}, 'but a dict with the keys'),
        ({'model': {'x': 1}, 'epoch': 3}, "a dict with the keys 'model', 'epoch'; .*'state_dict'"),
        ({'state_dict': {}, 'meta': {}}, "keys 'state_dict', 'meta'"),
    ],
)
def test_a_file_without_weights(model, content, message):
    with pytest.raises(ValueError, match=message):
        check_fit(model, content, 'base.pth')


def test_shared_weights_may_be_saved_once(model, state, warnings):
    """As safetensors does it; the detector then has both names."""
    model.bbox_head.cls_branches[0] = model.bbox_head.cls_branches[1]
    assert HEAD in model.state_dict()
    check(model, {k: v for k, v in state.items() if 'cls_branches.0' not in k})
    assert not warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'detr/detr_r50_8xb2-150e_coco.py',
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
    ],
)
def test_stock_detectors_take_their_own_checkpoints(name, tmp_path, warnings):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config

    register_all_modules(init_default_scope=True)
    config = get_config(f'mmdet::{name}').model
    config.backbone.init_cfg = None
    model, other = (MODELS.build(copy.deepcopy(config)) for _ in range(2))
    for parameter in model.parameters():  # Before init_weights some are whatever memory held.
        parameter.data.nan_to_num_()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'published.pth')
    check_fit(other, torch.load(tmp_path / 'published.pth', weights_only=True), 'published.pth')
    assert not warnings
