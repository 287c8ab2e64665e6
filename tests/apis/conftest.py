"""An ordinary user's config: it trains the tiny detector and knows nothing of forgetting."""

import copy

import pytest


@pytest.fixture(scope='session')
def ordinary_config(tiny_data):
    from mmforget.testing import tiny_config

    config = tiny_config(tiny_data, 'unused')
    for key in ('work_dir', 'custom_imports', 'load_from', 'log_level'):
        config.pop(key, None)
    config.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 50, 'val_interval': 1}
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 3, 'dataset': inner}
    config.train_dataloader.batch_sampler = {'type': 'AspectRatioBatchSampler'}
    config.val_evaluator = {
        'type': 'CocoMetric',
        'ann_file': f'{tiny_data}/annotations/val.json',
        'metric': ['bbox'],
        'format_only': False,
    }
    config.test_dataloader = copy.deepcopy(config.val_dataloader)
    config.test_evaluator = copy.deepcopy(config.val_evaluator)
    config.test_cfg = {'type': 'TestLoop'}
    config.optim_wrapper = {
        'type': 'AmpOptimWrapper',
        'optimizer': {'type': 'SGD', 'lr': 0.02},
    }
    config.param_scheduler = [{'type': 'MultiStepLR', 'milestones': [40], 'end': 50}]
    config.custom_hooks = [
        {'type': 'EMAHook', 'ema_type': 'ExpMomentumEMA'},
        {'type': 'NumClassCheckHook'},
    ]
    # As MMDetection's default runtime has it: one name for every run.
    config.visualizer = {
        'type': 'DetLocalVisualizer',
        'vis_backends': [{'type': 'LocalVisBackend'}],
        'name': 'visualizer',
    }
    config.auto_scale_lr = {'enable': True, 'base_batch_size': 16}
    config.default_hooks.checkpoint.save_best = 'coco/bbox_mAP'
    return config


@pytest.fixture
def ordinary(ordinary_config):
    """A copy that a test may change."""
    return copy.deepcopy(ordinary_config)


@pytest.fixture
def ordinary_file(ordinary, tmp_path):
    """The same as a file, dumped as mmengine dumps configs into a work dir."""
    path = tmp_path / 'config' / 'tiny.py'
    path.parent.mkdir()
    path.write_text('\n'.join(f'{k} = {v!r}' for k, v in ordinary.to_dict().items()))
    return path
