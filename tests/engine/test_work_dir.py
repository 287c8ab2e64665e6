"""Work dirs that cannot be written or belong to another run."""

import json
import shutil

import pytest
import torch

from mmforget.engine.work_dir import check_writable, other_run

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
HELP = 'Give another one with --work-dir or work_dir in the config'


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def test_a_work_dir_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / 'a' / 'b')
    check_writable(str(tmp_path / 'a' / 'b'))
    assert contents(tmp_path) == ['a', 'a/b']


@pytest.mark.parametrize('inside', ['', 'deeper', 'adapters'])
def test_a_file_in_place_of_a_folder(tmp_path, inside):
    folder = tmp_path / 'run'
    if inside == 'adapters':
        folder.mkdir()
    (folder / inside if inside == 'adapters' else folder).write_text('a file')
    if inside == 'deeper':
        folder /= 'deeper'
    with pytest.raises(OSError, match=f"The work dir '{folder}' cannot be written: .*{HELP}"):
        check_writable(folder)


@pytest.mark.parametrize('name', ['resume.pth', 'forgetting.json', 'last_checkpoint'])
def test_a_folder_in_place_of_a_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=f'cannot be written: {name} is a folder. Expected'):
        check_writable(tmp_path)


def test_a_run_that_cannot_write_its_adapters_does_not_begin(make_runner, tmp_path):
    (tmp_path / 'adapters').write_text('a file')
    with pytest.raises(OSError, match='cannot be written'):
        make_runner(tmp_path, **NO_VALIDATION).train()
    assert not (tmp_path / 'resume.pth').exists()


@pytest.fixture
def finished(reference_run, tmp_path):
    """A copy of a finished run, and its identity."""
    for name in ('resume.pth', 'forgetting.json', 'last_checkpoint', 'task_1.pth'):
        shutil.copy(reference_run.work_dir / name, tmp_path / name)
    return tmp_path, reference_run.runner.train_loop._identity()


def test_what_is_found_of_the_same_run(finished):
    folder, identity = finished
    assert 'same scenario with 2 finished tasks' in other_run(folder, identity)
    (folder / 'resume.pth').unlink()
    assert '2 of them finished' in other_run(folder, identity)
    (folder / 'forgetting.json').unlink()
    assert other_run(folder, identity) is None  # last_checkpoint names our own file.
    assert other_run(folder / 'absent', identity) is None


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'tasks': [['bag']]},
            r"another run, with tasks=\[\['bag', 'sneaker'\], \['dress'\]\], while",
        ),
        ({'max_steps': 9}, 'another run, with max_steps=4, while the config says 9'),
    ],
)
def test_another_run_is_not_overwritten(finished, changes, message):
    folder, identity = finished
    with pytest.raises(FileExistsError, match=rf"'{folder}' holds {message}.*--resume.*remove"):
        other_run(folder, {**identity, **changes})


def test_results_of_another_run_are_not_overwritten(finished):
    folder, identity = finished
    (folder / 'resume.pth').unlink()
    with pytest.raises(
        FileExistsError, match="the results of another run, with the tasks .*'dress'"
    ):
        other_run(folder, {**identity, 'tasks': [['bag', 'sneaker'], ['coat']]})
    (folder / 'forgetting.json').write_text(json.dumps({'accuracy': 1}))
    with pytest.raises(FileExistsError, match='a forgetting.json that mmforget has not written'):
        other_run(folder, identity)


def test_files_of_another_training_are_not_overwritten(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/somewhere/epoch_50.pth')
    with pytest.raises(
        FileExistsError, match="another training, whose last_checkpoint is '/some.*50"
    ):
        other_run(tmp_path, {'tasks': []})
    for content in ({'meta': {}}, [1]):
        torch.save(content, tmp_path / 'resume.pth')
        with pytest.raises(
            FileExistsError, match='resume.pth that ContinualForgettingLoop has not'
        ):
            other_run(tmp_path, {'tasks': []})
    (tmp_path / 'resume.pth').write_text('no checkpoint')
    with pytest.raises(FileExistsError, match='resume.pth that ContinualForgettingLoop has not'):
        other_run(tmp_path, {'tasks': []})


def test_the_loop_asks_before_it_overwrites(make_runner, finished):
    """Another scenario is refused, the same one is begun anew with a warning."""
    folder, _ = finished
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    changes = {'train_cfg.scenario.tasks': [['bag'], ['dress']], **NO_VALIDATION}
    with pytest.raises(FileExistsError, match='another run, with tasks='):
        make_runner(folder, **changes).train()
    method = {'train_cfg.method': {'type': 'mmforget.GSLoRA', 'forget_weight': 0.7}}
    with pytest.raises(FileExistsError, match=r'another run, with method=.* 0.7'):
        make_runner(folder, **method, **NO_VALIDATION).train()
    for changes in (method, {'randomness': {'seed': 4}}):
        with pytest.raises(ValueError, match='was written with (method|seed)=.*Resume with the'):
            make_runner(folder, resume=True, load_from=None, **changes, **NO_VALIDATION).train()
    assert {name: (folder / name).read_bytes() for name in before} == before

    runner = make_runner(folder, **NO_VALIDATION)
    messages = []
    runner.logger.warning = lambda message, *args, **kwargs: messages.append(message)
    loop = runner.build_train_loop(runner._train_loop)
    assert loop.task_index == 0
    assert [m for m in messages if '2 finished tasks: it is overwritten. --resume would' in m]
