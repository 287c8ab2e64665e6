"""The teacher stays what it was loaded as, shares what does not move, and survives a kill."""

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.engine.teacher import Teacher
from mmforget.structures import ForgettingTask
from mmforget.taps import TrunkCache, build_tap
from mmforget.taps.base import Stream, StreamOptions
from mmforget.trainable import GroupSparseLoRA, WholeWeights

TASK = ForgettingTask(0, ('bag',), ('dress',), ())
STREAMS = {
    'retain': Stream(slice(0, 2), StreamOptions()),
    'forget': Stream(slice(2, 4), StreamOptions()),
}


@pytest.fixture
def images(build_tiny, tiny_batch):
    """Four preprocessed images and their samples."""
    model = build_tiny()
    data = model.data_preprocessor(tiny_batch(4), training=True)
    return data['inputs'], data['data_samples']


def logits(model, images):
    """Of the detector itself, in eval mode."""
    tap = build_tap(model.eval())
    with torch.no_grad():
        return {name: out.logits for name, out in tap.forward(*images, STREAMS).items()}


def disturb(part, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize(
    'part',
    [lambda: GroupSparseLoRA(rank=2), lambda: WholeWeights(frozen=())],
    ids=['lora', 'whole'],
)
def test_it_answers_as_the_loaded_detector(build_tiny, images, part):
    model = build_tiny()
    want = logits(model, images)
    teacher = Teacher(model, TrunkCache(2**24))
    for seed in range(2):  # Two tasks.
        own = part()
        teacher.keep(own.moving(model))
        own.inject(model, TASK, seed)
        disturb(own, seed)
        for _ in range(2):  # The second answer comes out of the cache.
            found = teacher.outputs(*images, STREAMS)
            for name, value in want.items():
                torch.testing.assert_close(found[name].logits, value)
                assert not found[name].losses and not found[name].logits.requires_grad
        own.fold(model)
    changed = logits(model, images)
    assert any(not torch.allclose(changed[name], want[name]) for name in want)


def test_what_does_not_move_is_shared(build_tiny):
    model = build_tiny()
    teacher = Teacher(model)
    moving = GroupSparseLoRA(rank=2).moving(model)
    teacher.keep(moving)
    theirs, ours = dict(teacher.detector.named_parameters()), dict(model.named_parameters())
    assert theirs.keys() == ours.keys()
    apart = {name for name in ours if theirs[name].data_ptr() != ours[name].data_ptr()}
    assert apart == set(moving) == set(teacher.state_dict())


def test_the_previous_one_follows(build_tiny, images):
    model = build_tiny()
    teacher = Teacher(model)
    part = WholeWeights(frozen=())
    teacher.keep(part.moving(model))
    part.inject(model, TASK, 0)
    disturb(part)
    part.fold(model)
    teacher.keep(part.moving(model), anew=True)
    want = logits(model, images)
    part.inject(model, TASK, 0)
    disturb(part, 1)
    for name, output in teacher.outputs(*images, STREAMS).items():
        torch.testing.assert_close(output.logits, want[name])


def test_it_survives_a_kill(build_tiny, images):
    """A new process builds it around the student's weights, which are not the loaded ones."""
    model = build_tiny()
    want = logits(model, images)
    teacher = Teacher(model)
    part = WholeWeights()
    teacher.keep(part.moving(model))
    part.inject(model, TASK, 0)
    disturb(part)
    state = {key: value.clone() for key, value in teacher.state_dict().items()}
    other = build_tiny(seed=5)
    fresh = Teacher(other)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(state)
    for name, output in fresh.outputs(*images, STREAMS).items():
        torch.testing.assert_close(output.logits, want[name])


class Stop(Hook):
    """Ends the run before a step, as a kill does."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.at:
            raise InterruptedError


def test_an_untrained_one_knows_nothing_of_the_checkpoint(make_runner, tmp_path, tiny_base):
    """As in the authors' detection code; the same one in all tasks, after a kill as well."""
    options = {
        'train_cfg.method': {'type': 'mmforget.DER', 'teacher': 'untrained', '_delete_': True},
        'train_cfg.max_steps': 1,
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
    }
    runner = make_runner(tmp_path, Stop(1), **options)
    with pytest.raises(InterruptedError):
        runner.train()
    untrained = runner.train_loop.teacher.state_dict()
    loaded = torch.load(tiny_base, weights_only=True)['state_dict']
    assert 'bbox_head.cls_branches.0.weight' in untrained and set(untrained) <= set(loaded)
    differing = [name for name in untrained if not torch.equal(untrained[name], loaded[name])]
    # No training has changed the statistics of the tiny detector.
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    assert differing == [name for name in untrained if not name.endswith(statistics)]
    runner = make_runner(tmp_path, **options, resume=True, load_from=None)
    runner.train()
    for name, value in runner.train_loop.teacher.state_dict().items():
        assert torch.equal(value, untrained[name]), name


def test_an_unknown_teacher_is_refused(make_runner, tmp_path):
    method = {'type': 'mmforget.DER', 'teacher': 'mine', '_delete_': True}
    with pytest.raises(ValueError, match="DER got teacher='mine'; expected one of 'loaded'"):
        make_runner(tmp_path, **{'train_cfg.method': method}).train()


SIZES = ((64, 96), (96, 64), (64, 64), (80, 64))


@pytest.fixture
def mixed_images(build_tiny, tiny_batch):
    """Four images of four sizes, padded to the largest."""
    data = tiny_batch(4)
    for place, (height, width) in enumerate(SIZES):
        data['inputs'][place] = data['inputs'][place][:, :height, :width]
        data['data_samples'][place].set_metainfo({'img_shape': (height, width)})
    data = build_tiny().data_preprocessor(data, training=True)
    return data['inputs'], data['data_samples']


@pytest.mark.parametrize('cached', [False, True], ids=['plain', 'cached'])
@pytest.mark.parametrize(
    'part',
    [
        lambda: WholeWeights(frozen=()),
        lambda: WholeWeights(frozen=[r'backbone\..*']),
        lambda: WholeWeights(frozen=[r'backbone\..*', r'neck\..*', r'bbox_head\..*']),
        lambda: GroupSparseLoRA(rank=2),
    ],
    ids=['whole', 'neck', 'transformer', 'lora'],
)
def test_images_are_padded_as_the_student_pads_them(build_tiny, mixed_images, part, cached):
    model = build_tiny()
    teacher = Teacher(model, TrunkCache(2**24) if cached else None)
    own = part()
    teacher.keep(own.moving(model))
    own.inject(model, TASK, 0)
    tap = build_tap(model.eval(), TrunkCache(2**24) if cached else None)
    with torch.no_grad():
        student = tap.forward(*mixed_images, STREAMS)
    found = teacher.outputs(*mixed_images, STREAMS, tap)
    for name, output in student.items():
        assert (output.logits - found[name].logits).abs().max() < 1e-5


def test_what_nobody_asks_for_is_not_computed(build_tiny, images):
    model = build_tiny()
    teacher = Teacher(model)
    sizes = []
    teacher.detector.backbone.register_forward_hook(lambda _, args, out: sizes.append(len(args[0])))
    whole = teacher.outputs(*images, STREAMS)
    part = teacher.outputs(*images, {'forget': STREAMS['forget']})
    torch.testing.assert_close(part['forget'].logits, whole['forget'].logits)
    assert sizes[0] == 4 and sizes[-1] == 2


def test_statistics_are_replaced_with_the_weights(build_tiny):
    model, other = build_tiny(), build_tiny(seed=5)
    name = next(name for name, _ in other.named_buffers() if name.endswith('running_mean'))
    other.get_buffer(name).add_(1)
    teacher = Teacher(model)
    before = model.get_buffer(name).clone()
    teacher.replace(other.state_dict())
    torch.testing.assert_close(teacher.detector.get_buffer(name), other.get_buffer(name))
    torch.testing.assert_close(model.get_buffer(name), before)
    fresh = Teacher(build_tiny())
    fresh.load_state_dict(teacher.state_dict())
    torch.testing.assert_close(fresh.detector.get_buffer(name), other.get_buffer(name))
