"""Log lines, the estimate over all tasks, and the one axis of all steps."""

import json
import re
import time
from types import SimpleNamespace

import pytest
from mmengine.hooks import Hook
from mmengine.runner import LogProcessor

from mmforget.engine import ForgettingLogProcessor
from mmforget.engine.log_processor import _with_task

NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}


class Notes(Hook):
    """The loss of every step and the estimate after it."""

    def __init__(self):
        self.losses = []
        self.etas = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        self.etas.append(runner.message_hub.get_info('eta'))


@pytest.fixture(scope='module')
def logged(make_runner, tmp_path_factory):
    """A finished run: its log and what the local backend wrote, line by line."""
    work_dir = tmp_path_factory.mktemp('logged')
    notes = Notes()
    runner = make_runner(work_dir, notes, log_level='INFO')
    runner.train()
    (log,) = work_dir.glob('*/*.log')
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    return SimpleNamespace(
        text=log.read_text(),
        scalars=[json.loads(line) for line in scalars.read_text().splitlines()],
        notes=notes,
        runner=runner,
    )


def test_lines_say_the_task_and_its_step(logged):
    lines = re.findall(
        r'Iter\(train\) \[\s*(\d+)/8\]  (task_\d) \[(\d)/4\]  lr: \S+  eta: \d', logged.text
    )
    assert lines == [
        (str(4 * t + s), f'task_{t + 1}', str(s)) for t in (0, 1) for s in (1, 2, 3, 4)
    ]


def test_evaluation_says_whose_it_is(logged):
    lines = re.findall(r'Iter\(val\) \[1/1\]  (loaded detector|task_\d)  .*bbox_mAP:', logged.text)
    assert lines == ['loaded detector', 'task_1', 'task_2']


def test_one_axis_for_the_steps_of_all_tasks_and_for_evaluation(logged):
    kinds = [('loss' if 'loss' in line else 'val', line['step']) for line in logged.scalars]
    task = [[('loss', 4 * t + s) for s in (1, 2, 3, 4)] + [('val', 4 * t + 4)] for t in (0, 1)]
    assert kinds == [('val', 0), *task[0], *task[1]]
    assert all(line['iter'] == line['step'] for line in logged.scalars)
    assert ['coco/AP_f' in line for line in logged.scalars if 'loss' not in line] == [
        False,
        True,
        True,
    ]


def test_means_do_not_reach_into_the_task_before(logged):
    shown = [line['loss'] for line in logged.scalars if 'loss' in line]
    losses = logged.notes.losses
    for first in (0, 4):
        for step in range(4):
            mean = sum(losses[first : first + step + 1]) / (step + 1)
            assert shown[first + step] == pytest.approx(mean, rel=1e-4)


def test_eta_counts_the_steps_and_pauses_of_all_tasks(make_runner, tmp_path, monkeypatch):
    """By a clock that stands still but for 2 s in a step and 10 s between tasks."""
    clock = SimpleNamespace(now=100.0)

    class Pass(Hook):
        def before_train(self, runner):
            clock.now += 10

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            clock.now += 2

        def after_forgetting_task(self, runner, task):
            clock.now += 10

    monkeypatch.setattr(
        'mmforget.engine.hooks.progress.time', SimpleNamespace(perf_counter=lambda: clock.now)
    )
    notes = Notes()
    make_runner(tmp_path, Pass(), notes, **NO_VALIDATION).train()
    due = [(2 * (8 - step), 10 * (2 - (step - 1) // 4)) for step in range(1, 9)]
    assert notes.etas == pytest.approx([steps + pauses for steps, pauses in due])


@pytest.mark.slow
def test_pauses_are_no_part_of_a_steps_time(make_runner, tmp_path):
    """Folding, saving and evaluation would show as time to load the next task's first batch."""

    class Pause(Hook):
        def after_forgetting_evaluation(self, runner, task, row):
            time.sleep(3)

    class Times(Hook):
        seen = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.seen.append(runner.message_hub.get_scalar('train/data_time').current())

    make_runner(tmp_path, Pause(), Times(), **NO_VALIDATION, **{'train_cfg.max_steps': 1}).train()
    assert len(Times.seen) == 2 and max(Times.seen) < 2


def test_settings_of_a_plain_log_processor_are_kept():
    custom = [{'data_src': 'loss', 'method_name': 'max', 'window_size': 'epoch'}]
    plain = LogProcessor(
        window_size=7,
        by_epoch=True,
        custom_cfg=custom,
        num_digits=2,
        log_with_hierarchy=True,
        mean_pattern='.*loss.*',
    )
    ours = ForgettingLogProcessor.like(plain)
    assert vars(ours) == {**vars(plain), 'by_epoch': False}


def test_a_log_processor_of_ones_own_stays(make_runner, tmp_path):
    class Own(LogProcessor):
        pass

    from mmengine.registry import LOG_PROCESSORS

    LOG_PROCESSORS.register_module(module=Own, name='TestOwnLogProcessor', force=True)
    overrides = {'log_processor': {'type': 'TestOwnLogProcessor'}, **NO_VALIDATION}
    runner = make_runner(tmp_path, **overrides, **{'train_cfg.max_steps': 1})
    runner.train()
    assert type(runner.log_processor) is Own and runner.log_processor.by_epoch is False


def test_without_a_forgetting_loop_lines_are_mmengines(make_runner, tmp_path):
    """As under tools/test.py, or in ordinary training with this log processor in the config."""
    overrides = {
        'train_cfg': {'_delete_': True, 'type': 'IterBasedTrainLoop', 'max_iters': 1},
        'log_processor': {'type': 'mmforget.ForgettingLogProcessor'},
        'custom_hooks': [],
        'log_level': 'INFO',
    }
    make_runner(tmp_path, **overrides, **NO_VALIDATION).train()
    (log,) = tmp_path.glob('*/*.log')
    assert re.search(r'Iter\(train\) \[1/1\]  lr: ', log.read_text())


def test_the_task_stands_behind_the_whole_counter():
    """MMEngine pads a step to the width of the total, which puts blanks into the brackets."""
    loop = SimpleNamespace(
        current_task=SimpleNamespace(name='task_1'), task_step=50, max_steps=2000
    )
    line = 'Iter(train) [  50/6000]  lr: 1.0e-04  eta: 1:00:00'
    assert _with_task(line, loop, 'train') == (
        'Iter(train) [  50/6000]  task_1 [50/2000]  lr: 1.0e-04  eta: 1:00:00'
    )
    line = 'Iter(val) [  50/5000]    eta: 0:10:00'
    assert _with_task(line, loop, 'val').startswith('Iter(val) [  50/5000]  task_1  ')
