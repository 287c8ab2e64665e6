"""The run that is replaced: aside while the new one runs, back if that comes to nothing."""

import pytest

from mmforget.apis.replaced_run import replaced_run, run_files


@pytest.fixture
def work_dir(tmp_path):
    """A finished run, beside a file that is none of its own."""
    (tmp_path / 'adapters' / 'task_1').mkdir(parents=True)
    for name in ('forgetting.json', 'resume.pth', 'task_1.pth', 'adapters/task_1/a', 'notes.txt'):
        (tmp_path / name).write_text('old')
    return tmp_path


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_gone_when_the_new_run_has_ended(work_dir):
    with replaced_run(work_dir):
        assert run_files(work_dir) == []
        (work_dir / 'task_1.pth').write_text('new')
    assert content(work_dir) == {'task_1.pth': 'new', 'notes.txt': 'old'}


def test_back_when_the_new_run_comes_to_nothing(work_dir):
    before = content(work_dir)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), replaced_run(work_dir):
            (work_dir / 'adapters').mkdir()
            (work_dir / 'resume.pth').write_text('new')
            raise error
        assert content(work_dir) == before


def test_a_finished_task_stays(work_dir):
    with pytest.raises(ValueError), replaced_run(work_dir):
        (work_dir / 'task_1.pth').write_text('new')
        raise ValueError
    assert content(work_dir) == {'task_1.pth': 'new', 'notes.txt': 'old'}


def test_what_a_kill_left_aside_comes_back(work_dir):
    before = content(work_dir)
    (work_dir / '.replaced').mkdir()
    for path in run_files(work_dir):
        path.rename(work_dir / '.replaced' / path.name)
    with pytest.raises(ValueError), replaced_run(work_dir):
        raise ValueError
    assert content(work_dir) == before


def test_a_folder_without_a_run_is_left_alone(tmp_path):
    (tmp_path / 'adapters').mkdir()
    (tmp_path / 'task_1.pth').write_text('of somebody else')
    assert run_files(tmp_path) == [] and run_files(tmp_path / 'absent') == []
    with replaced_run(tmp_path):
        pass
    assert content(tmp_path) == {'task_1.pth': 'of somebody else'}
