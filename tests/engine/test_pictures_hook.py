"""The pictures of a run: all there, the same ones each time, and the run none the wiser."""

import random

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image
from torch import nn

from mmforget.engine.detections import detect, load_detections
from mmforget.engine.hooks import ForgettingPicturesHook
from mmforget.engine.results import read_results

# The tiny detector is sure of nothing.
PICTURES = {'type': 'mmforget.ForgettingPicturesHook', 'images': 2, 'score_threshold': 0.0}
WITH_PICTURES = {
    'custom_hooks': [{'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2}, PICTURES],
}
NO_VALIDATION = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
FILES = {
    *('ap_curves.png', 'group_norms.png', 'loaded_detector.json'),
    *(f'task_{n}_{what}.png' for n in (1, 2) for what in ('detections', 'class_ap')),
}


class Killed(Exception):
    """Stands for a kill."""


class KillAt(Hook):
    """Dies before a step, counted through all tasks."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.at:
            raise Killed


class Collect(Hook):
    """What evaluation itself finds: a list of (scores, labels, boxes) for each pass."""

    def __init__(self):
        self.passes = []

    def before_val_epoch(self, runner):
        self.passes.append([])

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for sample in outputs:
            found = sample.pred_instances
            self.passes[-1].append((found.scores, found.labels, found.bboxes))


@pytest.fixture(scope='module')
def collected():
    return Collect()


@pytest.fixture(scope='module')
def pictured(make_runner, collected, tmp_path_factory):
    """Work dir of a finished run with pictures."""
    work_dir = tmp_path_factory.mktemp('pictured')
    make_runner(work_dir, collected, **WITH_PICTURES).train()
    return work_dir


def content(work_dir):
    return {path.name: path.read_bytes() for path in (work_dir / 'pictures').iterdir()}


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def timeless(work_dir):
    document = read_results(work_dir / 'forgetting.json')
    for row in document['tasks']:
        del row['seconds'], row['peak_memory_mb']
    return document


def test_pictures_are_there_and_whole(pictured):
    assert set(content(pictured)) == FILES
    for path in (pictured / 'pictures').glob('*.png'):
        pixels = np.asarray(Image.open(path))
        assert min(pixels.shape[:2]) > 150 and pixels.std() > 10


def test_visualizer_got_them_at_the_steps_of_their_tasks(pictured):
    (folder,) = pictured.glob('*/vis_data/vis_image')
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *(f'{name}.png_{step}.png' for name in ('ap_curves', 'group_norms') for step in (4, 8)),
        *(f'task_{n}_{w}.png_{4 * n}.png' for n in (1, 2) for w in ('detections', 'class_ap')),
    }
    last = np.asarray(Image.open(folder / 'ap_curves.png_8.png'))
    written = np.asarray(Image.open(pictured / 'pictures' / 'ap_curves.png'))
    np.testing.assert_array_equal(last, written)


def test_the_run_is_the_one_without_pictures(pictured, reference_run):
    for name in ('task_1.pth', 'task_2.pth'):
        ours, theirs = weights(pictured / name), weights(reference_run.work_dir / name)
        assert ours.keys() == theirs.keys()
        assert [k for k in theirs if not torch.equal(ours[k], theirs[k])] == []
    assert timeless(pictured) == timeless(reference_run.work_dir)


@pytest.mark.slow
@pytest.mark.parametrize('at', [0, 7])
def test_a_killed_and_resumed_run_draws_the_same_pictures(make_runner, pictured, tmp_path, at):
    """The loaded detector is gone by then; what it found is not."""
    every_step = {'train_cfg.checkpoint_interval': 1, **WITH_PICTURES}
    with pytest.raises(Killed):
        make_runner(tmp_path, KillAt(at), **every_step).train()
    make_runner(tmp_path, resume=True, load_from=None, **every_step).train()
    assert content(tmp_path) == content(pictured)
    assert timeless(tmp_path) == timeless(pictured)


@pytest.mark.slow
def test_resuming_a_run_that_was_begun_without_pictures(make_runner, tmp_path):
    """The row of the loaded detector is missing, and the rest is drawn."""
    with pytest.raises(Killed):
        make_runner(tmp_path, KillAt(4)).train()
    make_runner(tmp_path, resume=True, load_from=None, **WITH_PICTURES).train()
    assert set(content(tmp_path)) == {
        *('ap_curves.png', 'group_norms.png', 'task_2_class_ap.png', 'task_2_detections.png'),
    }


def test_without_evaluation_only_the_groups_are_drawn(make_runner, tmp_path):
    make_runner(tmp_path, **WITH_PICTURES, **NO_VALIDATION).train()
    assert set(content(tmp_path)) == {'group_norms.png'}


def test_the_loaded_detector_of_the_pictures_is_the_evaluated_one(pictured, collected):
    found = load_detections(pictured / 'pictures' / 'loaded_detector.json')
    assert found
    for image, boxes in found.items():
        scores, labels, places = collected.passes[0][image]
        np.testing.assert_allclose(boxes.scores, scores.numpy(), rtol=1e-4)
        np.testing.assert_array_equal(boxes.labels, labels.numpy())
        np.testing.assert_allclose(boxes.boxes, places.numpy(), rtol=1e-4, atol=1e-3)


def test_detect_leaves_no_trace(make_runner, tiny_base, tmp_path):
    """Not even with a pipeline and a detector that draw, and modules in different modes."""
    runner = make_runner(tmp_path)
    # Some weights are uninitialised memory before, NaN perhaps, which equals nothing.
    runner.model.load_state_dict(weights(tiny_base))
    dataset = runner.val_dataloader.dataset
    dataset.pipeline.transforms.insert(2, lambda results: (random.random(), results)[1])
    dataset.pipeline.transforms.insert(2, lambda results: (np.random.rand(), results)[1])
    dataset.pipeline.transforms.insert(2, lambda results: (torch.rand(1), results)[1])
    model = runner.model.train()
    model.backbone.eval()
    model.encoder.layers[0].train(False)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    found = detect(model, dataset, [0, 3])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert [module.training for module in model.modules()] == modes
    assert any(isinstance(m, nn.Dropout) and m.training for m in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert list(found) == [0, 3] and all(boxes.boxes.shape[1] == 4 for boxes in found.values())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'images': 0}, 'images=0; expected a number from 1 to 12'),
        ({'images': 13}, 'images=13'),
        ({'images': '4'}, "images='4'"),
        ({'score_threshold': 30}, 'score_threshold=30; expected a score in 0..1'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ForgettingPicturesHook(**arguments)


def test_another_loop(make_runner, tmp_path):
    """It would draw nothing, and say nothing."""
    overrides = {
        'train_cfg': {'_delete_': True, 'type': 'IterBasedTrainLoop', 'max_iters': 1},
        'custom_hooks': [PICTURES],
    }
    runner = make_runner(tmp_path, **overrides, **NO_VALIDATION)
    with pytest.raises(RuntimeError, match='which IterBasedTrainLoop does not have'):
        runner.train()
