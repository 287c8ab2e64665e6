"""One forward for both streams, or two where padding would differ; one matching per image."""

import copy
import logging
from uuid import uuid4

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmforget.digests import image_digest
from mmforget.engine import step as step_module
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.fine_tuning import FineTuning
from mmforget.methods.gradient_ascent import GradientAscent
from mmforget.methods.gs_lora import GSLoRA
from mmforget.methods.scrub import SCRUB
from mmforget.structures import ForgettingTask
from mmforget.taps import Stream, StreamOptions, TrunkCache, build_tap, matching
from mmforget.testing import tiny_detector
from mmforget.trainable import GroupSparseLoRA

TASK = ForgettingTask(0, ('bag',), ('dress',), ())


@pytest.fixture
def make_step(build_tiny):
    """A step on a detector without dropout; ``changes`` are those of the model config."""

    def make(auxiliary=False, targets='ffn', cache=None, **changes):
        model = build_tiny({**tiny_detector(dropout=0.0), **changes})
        trainable = GroupSparseLoRA(rank=2, targets=targets)
        trainable.inject(model, TASK, seed=0)
        with torch.no_grad():
            for parameter in trainable.parameters():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        method = GSLoRA(forget_weight=0.5, auxiliary=auxiliary)
        return ForgettingStep(model, build_tap(model, cache), method, trainable).train()

    return make


def told_of_padding():
    """What a fresh logger is told of padding from now on."""
    messages = []
    handler = logging.Handler()
    handler.addFilter(lambda record: 'padded' in record.getMessage())
    handler.emit = lambda record: messages.append(record.getMessage())
    MMLogger.get_instance(f'step_{uuid4()}').addHandler(handler)
    return messages


def crop(data, image, height, width):
    """Makes an image of a batch smaller, boxes included."""
    data = copy.deepcopy(data)
    data['inputs'][image] = data['inputs'][image][:, :height, :width]
    sample = data['data_samples'][image]
    sample.set_metainfo({'img_shape': (height, width)})
    sample.gt_instances.bboxes.clip_((height, width))
    return data


def alone(step, name, data):
    """A stream's losses from a forward of its own."""
    data = step.detector.data_preprocessor(copy.deepcopy(data), True)
    whole = Stream(slice(0, len(data['inputs'])), step.method.stream_options(name))
    return step.tap.forward(data['inputs'], data['data_samples'], {name: whole})[name]


def counted(monkeypatch, owner, name):
    """A list that grows by one with every call of a method."""
    calls, original = [], getattr(owner, name)

    def counting(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


@pytest.mark.parametrize(
    ('targets', 'forget_crops', 'retain_crops', 'forwards'),
    [
        ('ffn', {}, {}, 1),
        # Padded to one shape: the largest image decides.
        ('ffn', {0: (48, 56)}, {1: (40, 64), 2: (64, 32)}, 1),
        ('ffn', {0: (48, 56), 1: (56, 40)}, {}, 2),
        ('ffn', {}, {0: (48, 64), 1: (48, 64), 2: (32, 64)}, 2),
        # With the encoder in the trunk nothing above it looks at padding.
        ('decoder.*ffn.*', {0: (47, 55), 1: (57, 40)}, {}, 1),
    ],
)
def test_losses_are_those_of_two_forwards(
    make_step, tiny_batch, monkeypatch, targets, forget_crops, retain_crops, forwards
):
    step = make_step(targets=targets)
    told = told_of_padding()
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(5)}
    for key in ('inputs', 'data_samples'):
        batch[RETAIN][key] = batch[RETAIN][key][2:]
    for name, crops in ((FORGET, forget_crops), (RETAIN, retain_crops)):
        for image, size in crops.items():
            batch[name] = crop(batch[name], image, *size)
    outputs = [alone(step, name, batch[name]) for name in (FORGET, RETAIN)]
    wanted = step.method.losses(*outputs)
    calls = counted(monkeypatch, type(step.detector.bbox_head), 'forward')
    for _ in range(2):
        losses = step(batch, 0)
    assert len(calls) == 2 * forwards
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value > 0
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert len(told) == (forwards - 1)  # Once, though there were two steps.


@pytest.mark.parametrize(('trunk', 'least', 'most'), [('frozen', 0, 1e-6), ('trained', 1e-4, 1)])
def test_why_padding_takes_a_second_forward(make_step, tiny_batch, trunk, least, most):
    """GroupNorm sees padding, but for images that go through a frozen trunk by themselves."""
    step = make_step()
    step.detector.backbone.requires_grad_(trunk == 'trained')
    small = crop(crop(tiny_batch(2), 0, 40, 40), 1, 40, 40)
    own = alone(step, FORGET, small)
    together = copy.deepcopy(small)
    for key, values in tiny_batch(1).items():
        together[key] += values
    data = step.detector.data_preprocessor(together, True)
    padded = step.tap.forward(
        data['inputs'], data['data_samples'], {FORGET: Stream(slice(0, 2), StreamOptions())}
    )[FORGET]
    change = abs(own.losses['loss_cls'] - padded.losses['loss_cls']) / own.losses['loss_cls']
    assert least <= change <= most


@pytest.mark.parametrize('auxiliary', [False, True])
def test_one_matching_per_image_and_used_layer(make_step, tiny_batch, monkeypatch, auxiliary):
    step = make_step(auxiliary=auxiliary)
    head = step.detector.bbox_head
    matchings = counted(monkeypatch, matching, 'linear_sum_assignment')
    class_losses = counted(monkeypatch, head.loss_cls, 'forward')
    losses = step({FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}, 0)
    layers = 2 if auxiliary else 1  # The tiny decoder has two.
    assert len(matchings) == 5 * layers
    assert len(class_losses) == 2 * layers  # One per stream.
    assert any('d0' in name for name in losses) == auxiliary


@pytest.mark.parametrize('in_place', [True, False])
def test_pixels_changed_on_the_way_are_other_images(make_step, tiny_batch, monkeypatch, in_place):
    """A hook may change a loaded batch before the step gets it."""
    decoder = [r'decoder\.layers\.1\.ffn.*']
    step = make_step(targets=decoder, cache=TrunkCache(2**24))
    passes = counted(monkeypatch, step.detector.backbone, 'forward')
    batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}
    first = step(copy.copy(batch), 0)
    seen = len(passes)
    assert step(copy.copy(batch), 0)['loss_retain_cls'] == first['loss_retain_cls']
    assert len(passes) == seen
    images = batch[RETAIN]['inputs']
    if in_place:
        images[1][:, :8, :8] = 255
    else:
        images[1] = images[1].flip(-1)
    changed = step(copy.copy(batch), 0)
    assert len(passes) == seen + 1
    fresh = make_step(targets=decoder)(batch, 0)
    assert changed['loss_retain_cls'] != first['loss_retain_cls']
    expected = pytest.approx(fresh['loss_retain_cls'].item(), rel=1e-5)
    assert changed['loss_retain_cls'].item() == expected


def part(batch, images):
    return {key: [values[i] for i in images] for key, values in batch.items()}


@pytest.fixture
def coming(tiny_batch):
    """Five batches of four images; each but the first has one new image."""
    images = tiny_batch(8)
    return [
        {FORGET: part(images, [0, 1]), RETAIN: part(images, [2, new])} for new in (3, 4, 5, 6, 7)
    ]


def cache_for(images):
    cache = TrunkCache(2**24)
    cache.images_at_once = images
    return cache


@pytest.mark.parametrize('targets', ['ffn', [r'.*layers\.1\.ffn.*'], [r'decoder.*ffn.*']])
def test_looking_ahead_saves_passes_and_changes_nothing(make_step, coming, monkeypatch, targets):
    """Batch by batch each of four new images is computed with three copies of itself."""
    losses, passes = [], []
    for looks in (False, True):
        step = make_step(targets=targets, cache=cache_for(4))
        calls = counted(monkeypatch, step.detector.backbone, 'forward')
        found = []
        for number, batch in enumerate(coming):
            if looks:
                step.look_ahead(coming[number:])
            found.append(float(step(copy.copy(batch), 0)['loss_retain_cls']))
        losses.append(found)
        passes.append(len(calls))
    assert passes == [5, 2]
    assert losses[0] == losses[1]


def test_no_more_batches_are_asked_for_than_are_needed(make_step, coming):
    step = make_step(cache=cache_for(4))
    batches = iter(coming)
    step.look_ahead(batches)
    assert len(list(batches)) == 4
    batches = iter(coming[1:])
    step.look_ahead(batches)
    assert len(list(batches)) == 0
    batches = iter(coming)  # All is known.
    step.look_ahead(batches)
    assert len(list(batches)) == 4


def test_dropout_is_off_when_looking_ahead(build_tiny, coming):
    """Also in layers that joined the trunk since the last step."""
    found = []
    for trained in (True, False):
        model = build_tiny(tiny_detector(dropout=0.5))
        trainable = GroupSparseLoRA(rank=2, targets=r'decoder\.layers\.1\.ffn.*')
        trainable.inject(model, TASK, seed=0)
        step = ForgettingStep(model, build_tap(model, cache_for(4)), GSLoRA(), trainable).eval()
        if trained:
            step.train()
            model.train()
        step.look_ahead(coming)
        (entry,) = [
            step.tap.cache.get(stage, image)
            for entries in step.tap.cache._entries.values()
            for stage, image in list(entries)
            if image == step.tap.cache.looked_at[image_digest(coming[0][FORGET]['inputs'][0])]
            and stage == 'decoder.1.attention'
        ]
        found.append(entry)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])


@pytest.mark.parametrize('why', ['no cache', 'alone', 'large', 'drawing', 'too small a cache'])
def test_when_there_is_nothing_to_look_ahead_for(make_step, coming, monkeypatch, why):
    caches = {'no cache': None, 'alone': cache_for(1), 'too small a cache': cache_for(4)}
    step = make_step(cache=caches.get(why, cache_for(4)))
    if why == 'large':
        monkeypatch.setattr(step_module, 'SMALL_IMAGE', 16)
    if why == 'drawing':
        augments = nn.ModuleList([nn.Identity()])
        monkeypatch.setattr(step.detector.data_preprocessor, 'batch_augments', augments)
    if why == 'too small a cache':
        step.tap.cache.max_bytes = 100
        step.look_ahead(coming)  # Here it shows.
    calls = counted(monkeypatch, step.detector.backbone, 'forward')
    step.look_ahead(coming)
    assert not calls


def test_a_run_on_images_of_many_shapes(make_runner, tmp_path):
    """Two tasks; the log tells of the second forward once."""
    resize = {'type': 'RandomChoiceResize', 'scales': [(64, 64), (48, 48)], 'keep_ratio': True}
    runner = make_runner(
        tmp_path,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        log_level='INFO',
        **{
            'train_dataloader.batch_size': 1,
            'train_dataloader.dataset.pipeline': [
                {'type': 'LoadImageFromFile'},
                {'type': 'LoadAnnotations', 'with_bbox': True},
                resize,
                {'type': 'PackDetInputs'},
            ],
        },
    )
    runner.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('one after the other instead of together') == 1
    assert (tmp_path / 'task_2.pth').is_file()


def test_a_stream_that_the_method_does_not_look_at_is_not_run(make_step, tiny_batch, monkeypatch):
    step = make_step()
    wanted = alone(step, RETAIN, tiny_batch(3))
    step.method = FineTuning()
    calls = []
    forward = step.tap.forward
    monkeypatch.setattr(
        step.tap,
        'forward',
        lambda images, *args: calls.append(len(images)) or forward(images, *args),
    )
    losses = step({FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}, 0)
    assert calls == [3]
    assert set(losses) == {f'loss_retain_{name.removeprefix("loss_")}' for name in wanted.losses}
    for name, value in wanted.losses.items():
        found = losses[f'loss_retain_{name.removeprefix("loss_")}']
        assert found.item() == pytest.approx(value.item(), rel=1e-5)


def test_scrub_and_gradient_ascent_run_one_stream_at_a_time(make_step, tiny_batch):
    step = make_step()
    step.method = GradientAscent()
    assert step.method.streams == {FORGET}
    assert GradientAscent(retain_weight=1.0).streams == {FORGET, RETAIN}
    scrub = SCRUB(cycles=1, rounds=1)
    seen = []
    for number in range(3):
        scrub.before_step(number, 3)
        seen += scrub.streams
    assert seen == [FORGET, RETAIN, RETAIN]
    losses = step({FORGET: tiny_batch(2), RETAIN: tiny_batch(3)}, 0)
    assert losses and all(name.startswith('loss_forget') for name in losses)
