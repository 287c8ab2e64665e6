"""The same loop, hook and method on a classifier: two tasks from a config."""

import json

import pytest
import torch
from mmengine.runner import Runner

pytest.importorskip('timm')

from mmforget.datasets.garments_scenes import CLASSES  # noqa: E402
from mmforget.models.checkpoints import load_local_checkpoint  # noqa: E402
from mmforget.models.classifiers import ViTClassifier  # noqa: E402
from mmforget.testing import TINY_VIT, tiny_recognition_config  # noqa: E402


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A classifier trained for a few seconds."""
    from mmforget.datasets import GarmentSprites

    folder = tmp_path_factory.mktemp('recognition')
    torch.manual_seed(0)
    model = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=TINY_VIT)
    data = GarmentSprites('train')
    pixels = torch.stack([torch.tensor(data.get_data_info(i)['img']) for i in range(len(data))])
    labels = torch.tensor([data.get_data_info(i)['gt_label'] for i in range(len(data))])
    inputs = (pixels.permute(0, 3, 1, 2).float() - 72.9) / 90.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(300):
        chosen = torch.randint(len(labels), (64,))
        loss = torch.nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'base.pth')
    return folder


def test_two_tasks(trained, plain_dumps):
    runner = Runner.from_cfg(
        tiny_recognition_config(
            trained / 'run', trained / 'base.pth', experiment_name='recognition'
        )
    )
    runner.train()
    results = json.loads((trained / 'run' / 'forgetting.json').read_text())
    assert set(results['base']['per_class']) == set(CLASSES)
    first, second = results['tasks']
    assert results['base']['full']['Acc'] > 0.6
    assert first['full']['Acc_f'] < 0.1 and second['full']['Acc_f'] < 0.1
    assert first['full']['Acc_r_relative'] > 0.8
    assert second['full']['Acc_o'] is not None
    assert list(first['groups']) == [f'backbone.blocks.{i}' for i in range(3)]
    # What comes out is a plain classifier.
    plain = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=TINY_VIT)
    state = load_local_checkpoint(trained / 'run' / 'task_2.pth')['state_dict']
    assert not plain.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith('data_preprocessor')}
    ).missing_keys


def test_the_trunk_is_cut_below_the_lowest_block(trained, plain_dumps):
    from mmforget.structures import ForgettingTask
    from mmforget.taps import TrunkCache, build_tap
    from mmforget.trainable import GroupSparseLoRA

    model = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=TINY_VIT)
    sparsity = dict(type='ChosenGroups', groups=['backbone.blocks.2'])
    part = GroupSparseLoRA(4, sparsity=sparsity)
    part.inject(model, ForgettingTask(0, ('bag',), ('coat',), ()), 0)
    tap = build_tap(model, TrunkCache(2**20))
    assert tap.frozen_stages() == ['below backbone.blocks.2.mlp.fc1']
