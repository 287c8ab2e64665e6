"""Reference rows through the loop: fine-tuning of whole weights, Retrain, random drop."""

import pytest
import torch

from mmforget.engine.results import read_results


def run(make_runner, work_dir, hook, **overrides):
    overrides = {
        'custom_hooks': [hook],
        'train_cfg.method': {'type': 'mmforget.FineTuning'},
        'train_cfg.scenario.tasks': [['bag'], ['dress']],
        'train_cfg.max_steps': 2,
        'train_cfg.trunk_cache_mb': 16,
        **overrides,
    }
    runner = make_runner(work_dir, **overrides)
    runner.train()
    files = [work_dir / 'task_1.pth', work_dir / 'task_2.pth']
    weights = [torch.load(file, weights_only=True)['state_dict'] for file in files]
    return runner, weights, read_results(work_dir / 'forgetting.json')


def scored(runner):
    """AP of every class by the runner's validation, nothing cached."""
    metric = runner.val_loop.evaluator.metrics[0]
    runner.val_loop.run()
    return metric.row()['per_class']


def differing(a, b):
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.mark.parametrize('frozen', ['heads', ()])
def test_whole_weights(make_runner, tiny_base, tmp_path, frozen):
    base = torch.load(tiny_base, weights_only=True)['state_dict']
    hook = dict(type='mmforget.FullFineTuningHook', frozen=frozen)
    runner, (first, second), results = run(make_runner, tmp_path, hook)
    moved = differing(base, first)
    assert any(n.startswith('backbone.') for n in moved)
    assert any(n.startswith('bbox_head.') for n in moved) == (frozen == ())
    assert not any('running_' in name or 'num_batches' in name for name in moved)
    assert differing(first, second)
    share = results['tasks'][0]['trainable_share']
    assert share == 1 if frozen == () else 0.5 < share < 1
    assert results['tasks'][1]['per_class'] == scored(runner)


def test_retrain_begins_anew_in_each_task(make_runner, tiny_base, tmp_path):
    base = torch.load(tiny_base, weights_only=True)['state_dict']
    hook = dict(type='mmforget.ReinitialisedHook', kept='backbone')
    # At this rate a step moves no weight by more than its rounding.
    still = {'optim_wrapper.optimizer.lr': 1e-12, 'train_cfg.max_steps': 1}
    runner, (first, second), results = run(make_runner, tmp_path, hook, **still)
    anew = {n for n in differing(base, first) if not torch.allclose(base[n], first[n], atol=1e-6)}
    assert 'encoder.layers.0.ffn.layers.1.weight' in anew
    assert not any(name.startswith('backbone.') for name in anew)
    again = {n for n in first if not torch.allclose(first[n], second[n], atol=1e-6)}
    assert 'encoder.layers.0.ffn.layers.1.weight' in again
    assert results['tasks'][1]['per_class'] == scored(runner)


def test_random_drop_takes_no_step(make_runner, tiny_base, tmp_path):
    base = torch.load(tiny_base, weights_only=True)['state_dict']
    runner, (first, second), results = run(
        make_runner, tmp_path, dict(type='mmforget.RandomDropHook', share=0.5)
    )
    for name in differing(base, first):
        assert torch.equal(first[name][first[name] != 0], base[name][first[name] != 0])
    assert (second['query_embedding.weight'] == 0).sum() > (
        first['query_embedding.weight'] == 0
    ).sum()
    assert [row['steps'] for row in results['tasks']] == [0, 0]
    assert [row['trainable'] for row in results['tasks']] == [0, 0]
    assert results['tasks'][1]['per_class'] == scored(runner)
