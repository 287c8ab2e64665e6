"""Forgetting in one call: refused before any work, planned without a trace, or done whole."""

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.visualization import BaseVisBackend

import mmforget
from mmforget.apis import ForgettingRequest, prepare

ROOT = Path(__file__).parents[2]
TASKS = [['bag', 'sneaker'], ['dress']]


@pytest.fixture
def ready(ordinary, tiny_base, tmp_path, plain_dumps):
    """What is common to all calls: config, checkpoint, and where the result goes."""
    return {'config': ordinary, 'checkpoint': tiny_base, 'out': tmp_path / 'out' / 'forgotten.pth'}


@pytest.fixture(scope='module')
def finished(ordinary_config, tiny_base, tmp_path_factory, plain_dumps):
    """A finished call of two tasks and a few steps, to be looked at only."""
    folder = tmp_path_factory.mktemp('finished')
    request = folder / 'request.yml'
    request.write_text('tasks: [[bag, sneaker], [dress]]\nsteps: 80\nretain_images: 8\n')
    return mmforget.forget(
        ordinary_config,
        tiny_base,
        out=folder / 'deep' / 'forgotten.pth',
        request=request,
        steps=4,
        cfg_options={'log_level': 'ERROR'},
    )


# Refused.


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'classes': ['sneeker']}, ValueError, "'sneeker' is unknown. Did you mean 'sneaker'"),
        ({'classes': ['bag', 'bag']}, ValueError, "'bag' is asked for twice"),
        ({'classes': None}, ValueError, 'Got neither of classes and a request; give exactly one'),
        ({'request': ForgettingRequest(['bag'])}, ValueError, 'Got both of classes and a request'),
        ({'steps': 0}, ValueError, 'steps is 0; expected a whole number, at least 1'),
        ({'few_shot': 4, 'retain_images': 4}, ValueError, 'retain_images=4, few_shot=4; give at'),
        ({'checkpoint': 'gone.pth'}, FileNotFoundError, "'gone.pth' does not exist; expected the"),
        ({'checkpoint': 'mmforget://gone'}, FileNotFoundError, 'mmforget://gone does not exist'),
        ({'data_root': '/gone'}, FileNotFoundError, '/gone/annotations/train.json.*--data-root'),
        ({'out': '/proc/forgotten.pth'}, OSError, 'out /proc/forgotten.pth cannot be written'),
        ({'work_dir': '/proc/work'}, OSError, 'work dir /proc/work cannot be written'),
        (
            {'cfg_options': {'custom_hooks': [{'type': 'X', 'targets': 'fnn'}]}},
            ValueError,
            "'fnn' matches no layer.*encoder.layers.0.ffn",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_refused_before_any_work(ready, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        prepare(**{**ready, 'classes': ['bag'], **arguments})
    assert not list(tmp_path.iterdir())


def test_a_detector_that_cannot_be_read_is_refused(ready):
    solo = mmforget.apis.load_config('mmdet::solo/solo_r50_fpn_1x_coco.py').model
    solo.backbone.init_cfg = None
    ready['config'].model = solo
    with pytest.raises(ValueError, match='cannot read SOLO yet'):
        prepare(**ready, classes=['bag'])


def test_a_result_is_not_overwritten_by_accident(ready):
    out = ready['out']
    out.parent.mkdir()
    out.write_text('precious')
    with pytest.raises(FileExistsError, match='forgotten.pth exists.*--overwrite'):
        prepare(**ready, classes=['bag'])
    assert prepare(**ready, classes=['bag'], overwrite=True).out == out
    with pytest.raises(IsADirectoryError, match='is a folder; expected the name of a file'):
        prepare(**{**ready, 'out': out.parent}, classes=['bag'])
    assert out.read_text() == 'precious'


def test_the_work_dir_of_another_run_is_kept(ready):
    work_dir = ready['out'].with_name('forgotten_work_dir')
    work_dir.mkdir(parents=True)
    (work_dir / 'forgetting.json').write_text('{}')
    with pytest.raises(FileExistsError, match='forgotten_work_dir holds another run.*--work-dir'):
        prepare(**ready, classes=['bag'])
    assert prepare(**ready, classes=['bag'], overwrite=True).work_dir == work_dir
    assert (work_dir / 'forgetting.json').exists()


def test_what_is_read_is_not_removed(ready):
    """The detector to forget from must not be part of the run that is replaced."""
    work_dir = ready['out'].with_name('forgotten_work_dir')
    work_dir.mkdir(parents=True)
    (work_dir / 'forgetting.json').write_text('{}')
    inside = work_dir / 'task_1.pth'
    inside.write_bytes(Path(ready['checkpoint']).read_bytes())
    with pytest.raises(ValueError, match='task_1.pth belongs to the run in .*copy the file'):
        prepare(**{**ready, 'checkpoint': inside}, classes=['bag'], overwrite=True)
    assert inside.is_file()


def test_nothing_to_resume(ready):
    with pytest.raises(FileNotFoundError, match='holds no resume.pth.*Start without --resume'):
        prepare(**ready, classes=['bag'], resume=True)


def test_missing_validation_annotations_are_noted(ready):
    ready['config'].val_dataloader.dataset.ann_file = 'annotations/gone.json'
    prepared = prepare(**ready, classes=['bag'])
    assert 'val_dataloader' not in prepared.config
    assert any('gone.json' in note and 'nothing is measured' in note for note in prepared.notes)


@pytest.mark.parametrize(
    ('trained', 'targets', 'group_by'),
    [
        ('deformable-detr_mimdet-vit_3k', 'ffn', None),
        ('faster-rcnn_mimdet-vit-sfp_2k', ['ffn', 'head'], None),
        ('fcos_mobilenetv2_2k', 'conv', 'stage'),
    ],
)
def test_where_adapters_go_depends_on_where_the_transformer_is(ready, trained, targets, group_by):
    config = Config.fromfile(ROOT / 'configs/garments' / f'{trained}_garments.py')
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        config[key] = ready['config'][key]
    prepared = prepare(**{**ready, 'config': config}, classes=['bag'])
    (hook,) = (hook for hook in prepared.config.custom_hooks if 'targets' in hook)
    assert hook.targets == targets
    assert hook.get('group_by') == group_by
    assert any('adapters go to its' in note for note in prepared.notes) == (targets != 'ffn')


# Planned.


def test_a_plan_says_what_would_happen_and_leaves_nothing(ready, tmp_path):
    plan = mmforget.plan(**ready, classes=TASKS, steps=12, retain_images=5)
    preview = plan.preview
    assert [task.classes for task in preview.tasks] == TASKS
    for task in preview.tasks:
        assert task.images['retain'] == 5
        assert 0 < task.images['forget'] <= task.candidates['forget'] <= 24
    assert preview.groups == [f'{s}.layers.{i}' for s in ('encoder', 'decoder') for i in (0, 1)]
    assert len(preview.layers) == 8
    # Two linears of 16 by 32 per block, rank 8.
    assert preview.trainable == 4 * 2 * 8 * (16 + 32)
    assert preview.trial_batches == 4 * (8 + 2) + 2
    assert preview.validation_images == 4
    assert preview.training_seconds > 2 * 12 * preview.seconds_per_step > 0
    per_image = preview.seconds_per_validation_image + 2 * preview.seconds_per_known_image
    assert preview.validation_seconds == pytest.approx(4 * per_image)
    text = str(plan)
    assert '| task_1 | bag, sneaker |' in text
    assert 'candidates, of which each task chooses' in text
    assert 'Extrapolated from three real steps' in text
    assert 'EMAHook of the config was dropped' in text
    assert not list(tmp_path.iterdir())


def test_a_plan_reaches_no_tracker(ready):
    @VISBACKENDS.register_module(force=True)
    class Tracker(BaseVisBackend):
        def __init__(self, **kwargs):
            raise AssertionError('a tracker was opened')

        experiment = add_config = add_graph = add_image = add_scalar = add_scalars = None

    ready['config'].visualizer.vis_backends = [{'type': 'Tracker'}]
    mmforget.plan(**ready, classes=['bag'], steps=4, retain_images=8)


# Done.


def test_the_result_is_the_plain_detector(finished, build_tiny, tiny_base):
    last = finished.work_dir / 'task_2.pth'
    assert finished.checkpoint.read_bytes() == last.read_bytes()
    content = torch.load(finished.checkpoint, weights_only=True)
    assert sorted(content['meta']['forgotten']) == ['bag', 'dress', 'sneaker']
    before = torch.load(tiny_base, weights_only=True)['state_dict']
    assert content['state_dict'].keys() == before.keys()
    moved = {k for k, v in content['state_dict'].items() if not torch.equal(v, before[k])}
    assert moved and all('.ffn.' in name for name in moved)
    assert not list(finished.checkpoint.parent.glob('.*'))


def test_the_settings_of_the_call_win_over_the_request(finished):
    rows = finished.results['tasks']
    assert [row['steps'] for row in rows] == [4, 4]
    assert [row['classes'] for row in rows] == TASKS


def test_the_table_is_printed(finished):
    text = str(finished)
    assert finished.measured and 'Nothing was measured' not in text
    assert '| GS-LoRA | 2          | dress        |' in text
    assert 'forgotten.pth is the detector' in text


def test_the_dumped_config_runs_again(finished, tiny_base, tmp_path):
    """A config from a work dir, and one that forgets already."""
    (dumped,) = finished.work_dir.glob('*/vis_data/config.py')
    prepared = prepare(dumped, tiny_base, ['bag'], tmp_path / 'x.pth')
    assert prepared.config.train_cfg.scenario.tasks == [['bag']]
    assert len(prepared.config.custom_hooks) == 3


def test_evaluation_agrees_with_the_run(finished, ordinary, tiny_base):
    row = finished.results['tasks'][-1]
    before = finished.work_dir / 'forgetting.json'
    scores = mmforget.evaluate(ordinary, finished.checkpoint, TASKS, base=before)
    for name in ('AP_f', 'AP_o', 'AP_r', 'AP50_r', 'drop'):
        assert getattr(scores.full, name) == pytest.approx(row['full'][name], abs=1e-3), name
    for name, pair in row['per_class'].items():
        assert scores.per_class[name] == pytest.approx(pair, abs=1e-3), name


def test_evaluation_reads_the_tasks_from_the_results(finished, ordinary):
    base = finished.work_dir / 'forgetting.json'
    named = mmforget.evaluate(ordinary, finished.checkpoint, TASKS, base=base)
    assert mmforget.evaluate(ordinary, finished.checkpoint, base=base) == named


class Killed(Exception):
    pass


def test_a_killed_run_is_gone_on_with(finished, ordinary, tiny_base, tmp_path, plain_dumps):
    """To the same detector, bit by bit."""

    @HOOKS.register_module(force=True)
    class KillInSecondTask(Hook):
        def before_forgetting_task(self, runner, task):
            if task.index == 1:
                raise Killed

    settings = {
        'checkpoint': tiny_base,
        'classes': TASKS,
        'out': tmp_path / 'forgotten.pth',
        'steps': 4,
        'retain_images': 8,
        'cfg_options': {'log_level': 'ERROR'},
    }
    killed = copy.deepcopy(ordinary)
    killed.custom_hooks.append({'type': 'KillInSecondTask'})
    with pytest.raises(Killed):
        mmforget.forget(killed, **settings)
    assert not (tmp_path / 'forgotten.pth').exists()
    result = mmforget.forget(ordinary, **settings, resume=True)
    ours, whole = (
        torch.load(path, weights_only=True)['state_dict']
        for path in (result.checkpoint, finished.checkpoint)
    )
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_evaluation_against_the_checkpoint_before(finished, ordinary, tiny_base):
    """The names come from the checkpoint; before and after of one detector are the same."""
    scores = mmforget.evaluate(ordinary, finished.checkpoint, base=finished.checkpoint)
    pairs = scores.per_class.values()
    assert any(before is not None for before, _ in pairs)
    assert all(before == after for before, after in pairs)
    with pytest.raises(ValueError, match='does not say what it has forgotten; give classes='):
        mmforget.evaluate(ordinary, tiny_base)


def test_evaluation_refuses_another_detectors_weights(ordinary, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'meta': {}}, path)
    with pytest.raises(ValueError, match=r'other.pth does not fit.* tensors missing: .* more'):
        mmforget.evaluate(ordinary, path, ['bag'])


def test_without_validation_data_it_forgets_and_says_so(ready):
    ready['config'].val_dataloader = ready['config'].val_evaluator = None
    options = {'log_level': 'ERROR'}
    result = mmforget.forget(**ready, classes=['bag'], steps=2, few_shot=1, cfg_options=options)
    assert result.checkpoint.is_file() and not result.measured
    assert 'Nothing was measured: there were no validation data.' in str(result)
    # Its log is its own, whatever ran in this process before.
    assert list(result.work_dir.glob('*/vis_data/config.py'))
    # The same again replaces the run, and with it everything an earlier one left there.
    (result.work_dir / 'task_9.pth').write_text('stale')
    again = mmforget.forget(
        **ready, classes=['bag'], steps=2, few_shot=1, cfg_options=options, overwrite=True
    )
    assert not (again.work_dir / 'task_9.pth').exists()
    assert again.results['tasks'][0]['groups'] == result.results['tasks'][0]['groups']


# The package and the command.


@pytest.mark.slow
def test_importing_mmforget_stays_light():
    """MMDetection is imported by the first call, not by ``import mmforget``."""
    code = (
        'import sys, mmforget; assert "mmdet.apis" not in sys.modules;'
        'assert "mmforget.apis" not in sys.modules'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'forgot'"):
        mmforget.forgot  # noqa: B018


@pytest.fixture
def command(monkeypatch):
    """Runs tools/forget.py in this process, which has MMDetection imported already."""

    def run(*arguments):
        script = ROOT / 'tools/forget.py'
        monkeypatch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
        runpy.run_path(str(script), run_name='__main__')

    return run


def test_the_command_refuses_without_a_traceback(
    command, ordinary_file, tiny_base, tmp_path, capsys
):
    out = tmp_path / 'forgotten.pth'
    with pytest.raises(SystemExit) as stop:
        command(ordinary_file, tiny_base, '--classes', 'bagg', '--out', out)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert "forget.py: error: The class 'bagg' is unknown. Did you mean 'bag'?" in shown
    assert not out.exists()


def test_the_command_plans(command, ordinary_file, tiny_base, tmp_path, capsys, plain_dumps):
    request = tmp_path / 'request.json'
    request.write_text(json.dumps({'tasks': TASKS, 'steps': 4}))
    out = tmp_path / 'forgotten.pth'
    command(ordinary_file, tiny_base, '--request', request, '--out', out, '--dry-run')
    shown = capsys.readouterr().out
    assert '| task_2 | dress ' in shown and 'Expected time: at most about' in shown
    assert not out.exists() and not (tmp_path / 'forgotten_work_dir').exists()


@pytest.mark.slow
def test_the_command_on_garments(tmp_path):
    """The real detector: sneakers and bags go; what is kept is measured."""
    out = tmp_path / 'forgotten.pth'
    arguments = [
        'configs/garments/deformable-detr_mobilenetv2_3k_garments.py',
        'mmforget://deformable-detr_mobilenetv2_garments',
        *('--classes', 'bag', 'sneaker'),
        *('--data-root', 'data/garments', '--out', str(out)),
    ]
    done = subprocess.run(
        [sys.executable, 'tools/forget.py', *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'forgotten_work_dir/forgetting.json').read_text())['tasks']
    assert [row['classes'] for row in rows] == [['bag', 'sneaker']]
    assert rows[0]['full']['AP_f'] < 0.02 and rows[0]['full']['AP_r_relative'] > 0.95
    assert '| GS-LoRA | 1 ' in done.stdout
    assert out.read_bytes() == (tmp_path / 'forgotten_work_dir/task_1.pth').read_bytes()
