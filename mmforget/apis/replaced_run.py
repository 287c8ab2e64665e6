"""A run that is to be replaced stays until there is something in its place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmforget.engine.checkpoints import RESUME_FILE
from mmforget.engine.results import FILE_NAME

_ASIDE = '.replaced'


def run_files(work_dir: Path) -> list[Path]:
    """What an earlier run left in a work dir; a folder without a run's own files has none."""
    names = (FILE_NAME, RESUME_FILE, 'last_checkpoint')
    found = [work_dir / name for name in names if (work_dir / name).is_file()]
    if not found:
        return []
    rest = [work_dir / 'adapters', work_dir / 'pictures', *sorted(work_dir.glob('task_*.pth'))]
    return [*found, *(path for path in rest if path.exists())]


@contextmanager
def replaced_run(work_dir: Path) -> Iterator[None]:
    """While open, the run that was in the work dir lies aside.

    Afterwards it is gone, or back in its place where the body failed before a task was finished.

    Args:
        work_dir: May hold a run, or not exist.
    """
    aside = work_dir / _ASIDE
    if aside.is_dir():  # A process was killed; what lies in the work dir came later.
        _put_back(aside, work_dir)
    moved = run_files(work_dir)
    if moved:
        aside.mkdir()
    for path in moved:
        path.rename(aside / path.name)
    try:
        yield
    except BaseException:
        if aside.is_dir():
            _put_back(aside, work_dir)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, work_dir: Path) -> None:
    """Unless the new run has finished a task, which is worth more than the old one."""
    if not any(work_dir.glob('task_*.pth')):
        for path in aside.iterdir():
            target = work_dir / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
    shutil.rmtree(aside)
