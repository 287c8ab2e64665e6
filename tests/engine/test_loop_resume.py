"""A run that was killed and resumed ends as the one that was not, bit for bit."""

import json

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.engine.results import read_results

SELECTION = {
    'train_cfg.max_steps': 6,
    'custom_hooks': [
        {
            'type': 'mmforget.GroupSparseLoRAHook',
            'rank': 2,
            'sparsity': {'type': 'GroupSelection', 'strength': 0.9, 'window': 0.5},
        }
    ],
}
NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


class Killed(Exception):
    """Stands for a kill."""


class Kill(Hook):
    """Dies before the step number ``at``, counted through all tasks."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.at:
            raise Killed


class Rates(Hook):
    """Notes the learning rate of every step."""

    def __init__(self):
        self.of_step = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.of_step[batch_idx] = runner.optim_wrapper.get_lr()['lr'][0]


def weights(folder, name='task_2.pth'):
    return torch.load(folder / name, weights_only=True)['state_dict']


def timeless(folder):
    document = read_results(folder / 'forgetting.json')
    for row in document['tasks']:
        del row['seconds'], row['peak_memory_mb']
    return document


def run_with_kills(make_runner, work_dir, kills, **overrides):
    """Kills before each of the given steps, resumes the way mmdet's ``--resume`` does."""
    resume = {}
    for at in kills:
        with pytest.raises(Killed):
            make_runner(work_dir, Kill(at), **overrides, **resume).train()
        resume = {'resume': True, 'load_from': None}
    rates = Rates()
    make_runner(work_dir, rates, **overrides, **resume).train()
    return rates


def assert_same_end(folder, reference):
    for name in ('task_1.pth', 'task_2.pth'):
        ours, theirs = weights(folder, name), weights(reference, name)
        assert ours.keys() == theirs.keys()
        assert [k for k in theirs if not torch.equal(ours[k], theirs[k])] == []
    assert timeless(folder) == timeless(reference)
    for part in ('task_1', 'task_2', 'cumulative'):
        for file in ('adapter_config.json', 'adapter_model.safetensors'):
            path = f'adapters/{part}/{file}'
            assert (folder / path).read_bytes() == (reference / path).read_bytes()


@pytest.mark.parametrize(
    ('kills', 'interval', 'first'),
    [
        pytest.param([0], None, 0, id='before the first step'),
        pytest.param([4], None, 4, id='between two tasks'),
        pytest.param([3, 7], 2, 6, id='inside both tasks'),
    ],
)
def test_resume_equals_no_resume(make_runner, reference_run, tmp_path, kills, interval, first):
    """With AdamW's moments, a cosine schedule and dropout in play."""
    rates = run_with_kills(
        make_runner, tmp_path, kills, **{'train_cfg.checkpoint_interval': interval}
    )
    assert min(rates.of_step) == first, 'only what was lost is done again'
    assert len(set(rates.of_step.values())) > 1, 'the schedule moves'
    assert_same_end(tmp_path, reference_run.work_dir)


def test_resume_after_groups_were_pruned(make_runner, tmp_path):
    """What was pruned before the kill stays pruned, in the optimiser as well."""
    reference, folder = tmp_path / 'reference', tmp_path / 'killed'
    make_runner(reference, **SELECTION).train()
    run_with_kills(make_runner, folder, [5], **SELECTION, **{'train_cfg.checkpoint_interval': 4})
    groups = json.loads((folder / 'forgetting.json').read_text())['tasks'][0]['groups']
    assert 0.0 in groups.values() and any(groups.values())
    assert_same_end(folder, reference)


@pytest.mark.slow
def test_resume_after_a_ranking_with_a_cold_cache(make_runner, tmp_path):
    """The ranking is not taken again, and what the trunk gives does not depend on its cache."""
    overrides = {
        'train_cfg.max_steps': 6,
        'train_cfg.trunk_cache_mb': 64,
        'train_cfg.checkpoint_interval': 4,
        'custom_hooks': [
            {
                'type': 'mmforget.GroupSparseLoRAHook',
                'rank': 2,
                'sparsity': {'type': 'GroupRanking', 'strength': 0.9, 'batches': 2},
            }
        ],
    }
    reference, folder = tmp_path / 'reference', tmp_path / 'killed'
    make_runner(reference, **overrides).train()
    run_with_kills(make_runner, folder, [5], **overrides)
    assert_same_end(folder, reference)


def test_pruned_groups_are_in_the_resume_checkpoint(make_runner, tmp_path):
    with pytest.raises(Killed):
        make_runner(
            tmp_path,
            Kill(5),
            **SELECTION,
            **NO_VALIDATION,
            **{'train_cfg.checkpoint_interval': 4},
        ).train()
    checkpoint = torch.load(tmp_path / 'resume.pth', weights_only=True)
    state = checkpoint['meta']['mmforget']
    alive = state['trainable']['alive']
    assert (state['task_index'], state['task_step']) == (0, 4)
    assert 0 < len(alive) < 4
    adapters = {k.rsplit('.ffn', 1)[0] for k in checkpoint['state_dict'] if '.lora_' in k}
    assert adapters == set(alive)
    assert len(checkpoint['optimizer']['state']) == 4 * len(alive)


def prepare(folder, checkpoint):
    """A work dir from which mmengine resumes ``checkpoint``."""
    folder.mkdir(exist_ok=True)
    (folder / 'last_checkpoint').write_text(str(checkpoint))


def test_resume_with_another_scenario_is_refused(make_runner, reference_run, tmp_path):
    prepare(tmp_path, reference_run.work_dir / 'resume.pth')
    runner = make_runner(
        tmp_path,
        resume=True,
        load_from=None,
        **{'train_cfg.scenario.tasks': [['bag'], ['dress']], **NO_VALIDATION},
    )
    with pytest.raises(ValueError, match=r"tasks=\[\['bag', 'sneaker'\].*\[\['bag'\], \['dress"):
        runner.train()


def test_resume_with_another_budget_is_refused(make_runner, reference_run, tmp_path):
    prepare(tmp_path, reference_run.work_dir / 'resume.pth')
    runner = make_runner(
        tmp_path, resume=True, load_from=None, **{'train_cfg.max_steps': 5, **NO_VALIDATION}
    )
    with pytest.raises(ValueError, match='max_steps=4, the config says 5'):
        runner.train()


def test_resume_from_a_foreign_checkpoint_is_refused(make_runner, tiny_base, tmp_path):
    """Such a file does not say which task is due; its iteration count would be nonsense."""
    prepare(tmp_path, tiny_base)
    runner = make_runner(tmp_path, resume=True, load_from=None, **NO_VALIDATION)
    with pytest.raises(ValueError, match='not written by ContinualForgettingLoop'):
        runner.train()


@pytest.mark.parametrize('resume', [True, False])
def test_no_weights(make_runner, tmp_path, resume):
    """Without a checkpoint a random detector would be trained: an empty work dir, no load_from."""
    runner = make_runner(tmp_path, resume=resume, load_from=None, **NO_VALIDATION)
    with pytest.raises(RuntimeError, match='No weights were loaded'):
        runner.train()
    assert not (tmp_path / 'resume.pth').exists()


EPOCHS = {
    'train_cfg.max_steps': None,
    'train_cfg.retain_epochs': 2,
    # One image of each retained class: eight in the first task, seven in the second.
    'train_cfg.scenario.retain': {'images': None, 'shots': 1},
    'train_cfg.checkpoint_interval': 2,
    **NO_VALIDATION,
}


def test_tasks_as_long_as_their_retain_streams(make_runner, tmp_path):
    """Two epochs of batches of two: 8 steps, then 6; the schedule of each ends with it."""
    rates = run_with_kills(make_runner, tmp_path / 'whole', [], **EPOCHS)
    rows = read_results(tmp_path / 'whole' / 'forgetting.json')['tasks']
    assert [row['steps'] for row in rows] == [8, 6]
    assert [row['images']['retain'] for row in rows] == [8, 7]
    assert sorted(rates.of_step) == list(range(14))
    assert rates.of_step[0] == rates.of_step[8] > 4 * rates.of_step[13] > 0
    run_with_kills(make_runner, tmp_path / 'killed', [5, 11], **EPOCHS)
    assert_same_end(tmp_path / 'killed', tmp_path / 'whole')
