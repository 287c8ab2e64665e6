"""AP against steps, without a trace in the run itself."""

import json

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.engine.hooks import ForgettingCurvesHook
from mmforget.engine.results import read_results

CURVES = {'type': 'mmforget.ForgettingCurvesHook', 'interval': 2}
LORA = {
    'type': 'mmforget.GroupSparseLoRAHook',
    'rank': 2,
    'sparsity': {'type': 'GroupSelection', 'strength': 0.9, 'window': 0.5},
}
OPTIONS = {
    'train_cfg.max_steps': 5,
    'train_cfg.checkpoint_interval': 3,
    'train_cfg.trunk_cache_mb': 64,
    'train_cfg.scenario.forget.augmentations': 1,
    'train_cfg.scenario.retain.augmentations': 1,
    'model': {'backbone': {'norm_eval': False}},
}


class Kill(Hook):
    """Dies before the step number ``at``, counted through all tasks."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.at:
            raise InterruptedError


def timeless(folder):
    document = read_results(folder / 'forgetting.json')
    for row in document['tasks']:
        del row['seconds'], row['peak_memory_mb']
    return document


def points(folder):
    return json.loads((folder / 'curves.json').read_text())['points']


@pytest.fixture(scope='module')
def plain(make_runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp('plain')
    make_runner(folder, **OPTIONS, custom_hooks=[LORA]).train()
    return folder


def same_weights(a, b):
    first, second = (torch.load(f / 'task_2.pth', weights_only=True)['state_dict'] for f in (a, b))
    return all(torch.equal(first[key], second[key]) for key in first)


def test_the_run_is_the_same_and_its_ends_are_in_the_curve(make_runner, tmp_path, plain):
    make_runner(tmp_path, **OPTIONS, custom_hooks=[LORA, CURVES]).train()
    assert timeless(tmp_path) == timeless(plain) and same_weights(tmp_path, plain)
    found = points(tmp_path)
    assert [(p['task'], p['step']) for p in found] == [
        *((1, 2), (1, 4), (1, 5), (2, 2), (2, 4), (2, 5))
    ]
    rows = timeless(plain)['tasks']
    assert [found[2]['full'], found[5]['full']] == [row['full'] for row in rows]


def test_a_killed_run_has_the_same_curve(make_runner, tmp_path, plain):
    hooks = [LORA, CURVES]
    make_runner(tmp_path / 'whole', **OPTIONS, custom_hooks=hooks).train()
    folder = tmp_path / 'killed'
    with pytest.raises(InterruptedError):
        make_runner(folder, Kill(9), **OPTIONS, custom_hooks=hooks).train()
    assert len(points(folder)) == 5  # One of them after the last checkpoint, at step 3.
    make_runner(folder, **OPTIONS, custom_hooks=hooks, resume=True, load_from=None).train()
    assert points(folder) == points(tmp_path / 'whole')
    assert same_weights(folder, plain)


def test_without_a_metric_there_is_no_curve(make_runner, tmp_path):
    nothing = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
    with pytest.raises(RuntimeError, match='nothing to measure with'):
        make_runner(tmp_path, **nothing, custom_hooks=[LORA, CURVES]).train()


@pytest.mark.parametrize('interval', [0, -1, 2.5, True])
def test_the_interval_is_checked(interval):
    with pytest.raises(ValueError, match='expected a positive whole number'):
        ForgettingCurvesHook(interval)
