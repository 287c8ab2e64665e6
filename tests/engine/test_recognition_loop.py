"""The same loop, hook and method on a classifier: two tasks from a config."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

pytest.importorskip('timm')

from mmforget.datasets.garments_scenes import CLASSES  # noqa: E402
from mmforget.models.checkpoints import load_local_checkpoint  # noqa: E402
from mmforget.models.classifiers import ViTClassifier  # noqa: E402

ARGS = dict(img_size=28, patch_size=7, embed_dim=32, depth=3, num_heads=2)
PREPROCESSOR = dict(type='ImgDataPreprocessor', mean=[72.9] * 3, std=[90.0] * 3)


def config(folder, **overrides):
    pipeline = [dict(type='LoadImageFromNDArray'), dict(type='mmforget.PackRecognition')]

    def loader(split, batch_size):
        return dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dict(type='mmforget.GarmentSprites', split=split, pipeline=pipeline),
        )

    made = Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmforget'], allow_failed_imports=False),
            model=dict(
                type='mmforget.ViTClassifier',
                model_name='vit_tiny_patch16_224',
                num_classes=10,
                timm_args=ARGS,
                data_preprocessor=PREPROCESSOR,
            ),
            load_from=str(folder / 'base.pth'),
            work_dir=str(folder / 'run'),
            train_dataloader=loader('train', 16),
            val_dataloader=loader('val', 100),
            train_cfg=dict(
                type='mmforget.ContinualForgettingLoop',
                scenario=dict(
                    tasks=[['bag'], ['trouser', 'sandal']],
                    forget=dict(images=32, augmentations=1),
                    retain=dict(images=128, augmentations=1),
                ),
                max_steps=24,
                method=dict(type='mmforget.GSLoRA', forget_weight=0.3, bound=6),
                trunk_cache_mb=64,
            ),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-2)),
            param_scheduler=[dict(type='CosineAnnealingLR', by_epoch=False)],
            custom_hooks=[dict(type='mmforget.GroupSparseLoRAHook', rank=4, alpha=4)],
            val_evaluator=dict(type='mmforget.ForgettingAccuracy'),
            randomness=dict(seed=1),
            log_level='WARNING',
            experiment_name=f'recognition_{folder.name}',
        )
    )
    made.merge_from_dict(overrides)
    return made


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A classifier trained for a few seconds."""
    from mmforget.datasets import GarmentSprites

    folder = tmp_path_factory.mktemp('recognition')
    torch.manual_seed(0)
    model = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=ARGS)
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
    runner = Runner.from_cfg(config(trained))
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
    plain = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=ARGS)
    state = load_local_checkpoint(trained / 'run' / 'task_2.pth')['state_dict']
    assert not plain.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith('data_preprocessor')}
    ).missing_keys


def test_the_trunk_is_cut_below_the_lowest_block(trained, plain_dumps):
    from mmforget.structures import ForgettingTask
    from mmforget.taps import TrunkCache, build_tap
    from mmforget.trainable import GroupSparseLoRA

    model = ViTClassifier('vit_tiny_patch16_224', 10, timm_args=ARGS)
    sparsity = dict(type='ChosenGroups', groups=['backbone.blocks.2'])
    part = GroupSparseLoRA(4, sparsity=sparsity)
    part.inject(model, ForgettingTask(0, ('bag',), ('coat',), ()), 0)
    tap = build_tap(model, TrunkCache(2**20))
    assert tap.frozen_stages() == ['below backbone.blocks.2.mlp.fc1']
