"""The loop that looks: real counts, real times, nothing written."""

import pytest

HOOK = {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2}
CHOSEN = {'type': 'ChosenGroups', 'groups': ['decoder.layers.1']}
NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


@pytest.fixture
def preview(make_runner, tmp_path):
    def run(**overrides):
        runner = make_runner(tmp_path, **{'train_cfg.type': 'mmforget.PreviewLoop', **overrides})
        runner.train()
        return runner.train_loop.preview

    return run


def test_groups_that_are_given_are_all_there_is(preview, tmp_path):
    found = preview(**NO_VALIDATION, custom_hooks=[{**HOOK, 'sparsity': CHOSEN}])
    assert found.groups == ['decoder.layers.1'] and not found.chosen_later
    assert found.layers == [f'decoder.layers.1.ffn.layers.{i}' for i in ('0.0', '1')]
    assert found.trainable == 2 * 2 * (16 + 32)
    assert found.trial_batches == 0
    assert found.validation_images == 0 and found.validation_seconds == 0
    assert found.training_seconds >= 2 * 4 * found.seconds_per_step > 0
    assert not list(tmp_path.rglob('*.pth')) and not (tmp_path / 'forgetting.json').exists()


def test_without_a_memory_for_the_trunk_every_step_pays_for_it(preview):
    assert preview(**NO_VALIDATION).trunk_seconds_per_image == 0


@pytest.mark.parametrize('steps', [1, 2])
def test_images_are_those_of_the_run(preview, steps):
    """The same counts as the loop draws, whatever the budget."""
    found = preview(**{'train_cfg.max_steps': steps, 'train_cfg.trunk_cache_mb': 64})
    assert [task.images for task in found.tasks] == [{'forget': 6, 'retain': 8}] * 2
    for task in found.tasks:
        assert all(task.candidates[name] >= task.images[name] for name in task.images)
    assert found.validation_images == 4 and found.validation_seconds > 0
    assert found.seconds_per_known_image > 0


def test_an_image_of_two_tasks_is_new_to_the_trunk_once(preview):
    """The replay buffer is the same for both tasks."""
    retain = {'images': 8, 'recurring': True, 'augmentations': 1}
    changes = {'train_cfg.trunk_cache_mb': 64, 'train_cfg.scenario.retain': retain}
    found = preview(**NO_VALIDATION, **changes)
    streams = sum(sum(task.images.values()) for task in found.tasks)
    assert 8 <= found.trunk_images <= streams - 8
