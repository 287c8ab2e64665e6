"""Losses, gradients and detections are the same with a remembered trunk, wherever it is cut."""

import copy
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from mmdet.models.layers import DeformableDetrTransformerDecoder
from tiny_families import tiny_family
from torch import nn

from mmforget.adapters import inject, remove
from mmforget.engine.step import ForgettingStep
from mmforget.methods import FORGET, RETAIN
from mmforget.methods.gs_lora import GSLoRA
from mmforget.structures import ForgettingTask
from mmforget.taps import Stream, StreamOptions, TrunkCache, build_tap
from mmforget.trainable import GroupSparseLoRA

FAMILIES = ['DeformableDETR', 'plain boxes', 'two-stage', 'DETR', 'ConditionalDETR', 'DABDETR']
ALL_STAGES = [
    'features',
    'encoder',
    'decoder.0.attention',
    'decoder.0',
    'decoder.1.attention',
    'decoder.1',
]
LOWER, UPPER = 'decoder.layers.0.ffn', 'decoder.layers.1.ffn'
# What is trained -> the stages that are frozen.
CUTS = {
    'encoder.layers.1': ALL_STAGES[:1],
    'decoder.layers.0.self_attn': ALL_STAGES[:2],
    LOWER: ALL_STAGES[:3],
    'decoder.layers.1.cross_attn': ALL_STAGES[:4],
    UPPER: ALL_STAGES[:5],
}


@pytest.fixture(scope='module', params=FAMILIES)
def family(request, build_tiny):
    return build_tiny(tiny_family(request.param))


def train_only(model, name):
    """The rest is frozen; the frozen stages."""
    model.requires_grad_(False)
    model.get_submodule(name).requires_grad_(True)
    return modes_of_training(model)


def modes_of_training(model):
    """As the step sets them: what is frozen sleeps. The frozen stages."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    tap = build_tap(model)
    for module in tap.trunk():
        module.eval()
    return tap.frozen_stages()


def run(model, cache, data, images=None, auxiliary=False):
    """Losses and gradients of one step, with equal dropout in what is trained."""
    inputs, samples = data
    images = images or [slice(0, 2), slice(2, 4)]
    options = StreamOptions(auxiliary=auxiliary)
    streams = {n: Stream(part, options) for n, part in zip((FORGET, RETAIN), images, strict=True)}
    model.zero_grad()
    torch.manual_seed(1)
    outputs = build_tap(model, cache).forward(inputs, copy.deepcopy(samples), streams)
    losses = {f'{n} {k}': v for n, out in outputs.items() for k, v in out.losses.items()}
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses | {n: g.clone() for n, g in grads.items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


def assert_close(found, wanted):
    """Losses to 1e-5, gradients to 1e-4 of their largest entry."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        bound = (1e-5 if 'loss' in key else 1e-4) * value.abs().max() + 1e-7
        assert (found[key] - value).abs().max() <= bound, key


@contextmanager
def counting(model):
    """Images that go through parts of the detector while open."""
    parts = {
        'backbone': model.backbone,
        'encoder': model.encoder.layers[0],
        **{f'self_attn {i}': layer.self_attn for i, layer in enumerate(model.decoder.layers)},
        **{f'ffn {i}': layer.ffn for i, layer in enumerate(model.decoder.layers)},
    }
    calls = Counter()

    def count(name):
        def hook(module, inputs, output):
            calls[name] += len(output[0] if isinstance(output, (tuple, list)) else output)

        return hook

    handles = [part.register_forward_hook(count(name)) for name, part in parts.items()]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize('trained', CUTS)
def test_a_step_is_the_same_with_a_cache(family, preprocess, trained):
    """Four images, one padded, auxiliary losses: without, with an empty and with a full cache."""
    frozen = train_only(family, trained)
    assert frozen == CUTS[trained]
    data = preprocess(family)
    plain = run(family, None, data, auxiliary=True)
    assert any(name.startswith(trained) for name in plain)
    cache = TrunkCache(10**9)
    first = run(family, cache, data, auxiliary=True)
    with counting(family) as calls:
        second = run(family, cache, data, auxiliary=True)
    assert_close(first, plain)
    assert_equal(second, first)  # A miss draws no random numbers, so dropout is the same.
    assert 'backbone' not in calls
    assert ('encoder' in calls) == (trained == 'encoder.layers.1')
    lower = trained.startswith(('encoder', 'decoder.layers.0'))
    assert ('ffn 0' in calls) == lower and calls['ffn 1'] == 4
    assert ('self_attn 0' in calls) == (lower and trained != LOWER)
    assert ('self_attn 1' in calls) == (trained != UPPER)


@pytest.mark.parametrize('trained', CUTS)
def test_equal_to_the_bit_at_equal_batch_shape(family, preprocess, trained):
    """A batch of one image, too large to share a batch with others."""
    train_only(family, trained)
    _, samples = preprocess(family)
    torch.manual_seed(5)
    sample = samples[0]
    sample.set_metainfo({'img_shape': (264, 256), 'batch_input_shape': (264, 264)})
    data = torch.randn(1, 3, 264, 264), [sample]
    both = [slice(0, 1), slice(0, 1)]
    plain = run(family, None, data, both)
    cache = TrunkCache(10**9)
    assert_equal(run(family, cache, data, both), plain)
    assert_equal(run(family, cache, data, both), plain)


def test_what_an_image_gives_does_not_depend_on_its_company(family, preprocess):
    """Or a resumed run, whose cache is filled in another order, would differ."""
    train_only(family, UPPER)
    inputs, samples = preprocess(family)
    data = inputs, samples
    whole, other = TrunkCache(10**9), TrunkCache(10**9)
    wanted = run(family, whole, data)
    for order in ([2, 0, 2, 0], [3, 0, 2, 2], [1, 3, 1, 0]):
        run(family, other, (inputs[order], [samples[index] for index in order]))
    with counting(family) as calls:
        assert_equal(run(family, other, data), wanted)
    assert 'encoder' not in calls


def test_few_images_are_not_filled_up(family, preprocess):
    """Three are computed one by one, not as four."""
    train_only(family, UPPER)
    inputs, samples = preprocess(family)
    with counting(family) as calls:
        run(family, TrunkCache(10**9), (inputs[:3], samples[:3]), [slice(0, 1), slice(1, 3)])
    assert calls['encoder'] == 3


def test_with_the_last_network_alone_the_memory_is_not_kept_at_hand(build_tiny, preprocess):
    """A cache too small for the encoder's memory of one image serves all steps."""
    model = build_tiny()
    train_only(model, UPPER)
    data = preprocess(model)
    wanted = run(model, None, data)
    cache = TrunkCache(4 * 1800)  # Two outputs of 12 queries with 16 channels are 1536 bytes.
    run(model, cache, data)
    with counting(model) as calls:
        assert_close(run(model, cache, data), wanted)
    assert calls == {'ffn 1': 4}
    assert len(cache) == 4


def test_the_cut_moves_down_without_a_second_encoder_pass(build_tiny, preprocess):
    """As trials of one group after another do, from the output downwards."""
    model = build_tiny()
    data = preprocess(model)
    cache = TrunkCache(10**9)
    with counting(model) as calls:
        train_only(model, UPPER)
        run(model, cache, data)
        seen = calls['encoder']
        assert seen
        train_only(model, LOWER)
        run(model, cache, data)
        assert calls['encoder'] == seen
    plain = run(model, None, data)
    assert_close(run(model, cache, data), plain)


def test_rounding_is_close_and_the_same_every_time(build_tiny, preprocess):
    model = build_tiny()
    train_only(model, UPPER)
    data = preprocess(model)
    exact = run(model, None, data)
    cache = TrunkCache(10**9, dtype='bfloat16')
    first = run(model, cache, data)
    assert_equal(run(model, cache, data), first)
    for key, value in exact.items():
        if 'loss' in key:
            assert first[key] != value
            assert first[key].item() == pytest.approx(value.item(), rel=0.05)


def test_from_files_it_is_the_same_to_the_bit(build_tiny, preprocess, tmp_path):
    model = build_tiny()
    train_only(model, LOWER)
    data = preprocess(model)
    cache = TrunkCache(0, 10**9, folder=tmp_path)
    first = run(model, cache, data)
    with counting(model) as calls:
        assert_equal(run(model, cache, data), first)
    assert 'encoder' not in calls and len(list(tmp_path.rglob('*.safetensors'))) == 8
    assert_equal(run(model, TrunkCache(10**9), data), first)
    cache.close()


def test_a_run_goes_on_when_files_vanish(build_tiny, preprocess, tmp_path):
    """As when a second run in the same folder takes them for a killed run's."""
    model = build_tiny()
    train_only(model, LOWER)
    data = preprocess(model)
    cache = TrunkCache(0, 10**9, folder=tmp_path)
    first = run(model, cache, data)
    for path in list(tmp_path.rglob('*.safetensors'))[::2]:
        path.unlink()
    assert_equal(run(model, cache, data), first)
    cache.close()


def test_folding_below_the_cut_leaves_nothing_stale(build_tiny, preprocess):
    """Tasks that train layer 1, then layer 0, then layer 1 again, with one cache."""
    model = build_tiny()
    cache = TrunkCache(10**9)
    data = preprocess(model)
    seen = []
    for layer in (1, 0, 1):
        adapters = inject(model, rf'decoder.*{layer}\.ffn.*', 2, 2.0, 0)
        for name, parameter in model.named_parameters():
            if name.endswith('lora_B'):
                nn.init.normal_(parameter)
        assert modes_of_training(model)[-1] == f'decoder.{layer}.attention'
        seen.append(run(model, cache, data))
        assert_close(seen[-1], run(model, None, data))
        remove(model, adapters, fold=True)
    assert not torch.equal(*(run_[f'{FORGET} loss_cls'] for run_ in seen[::2]))


def test_every_parameter_below_the_head_belongs_to_a_stage(family):
    tap = build_tap(family)
    assert list(tap.stages()) == ALL_STAGES
    staged = {id(p) for stage in tap.stages().values() for p in stage.all_parameters()}
    names = {name for name, p in family.named_parameters() if id(p) not in staged}
    assert all(name.startswith('bbox_head') for name in names)


def test_a_trained_level_embedding_is_not_below_the_cut(build_tiny):
    model = build_tiny()
    model.requires_grad_(False)
    model.level_embed.requires_grad_(True)
    assert build_tap(model).frozen_stages() == ['features']


def test_box_refinement_that_is_trained_moves_the_cut_down(build_tiny):
    model = build_tiny()
    model.requires_grad_(False)
    model.bbox_head.cls_branches.requires_grad_(True)
    assert build_tap(model).frozen_stages() == ALL_STAGES
    model.bbox_head.reg_branches[0].requires_grad_(True)
    assert build_tap(model).frozen_stages() == ALL_STAGES[:4]


def test_a_decoder_with_a_forward_of_its_own_is_not_cut(build_tiny, preprocess):
    class Own(DeformableDetrTransformerDecoder):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    model = build_tiny()
    model.decoder.__class__ = Own
    assert train_only(model, UPPER) == ALL_STAGES[:2]
    data = preprocess(model)
    assert_close(run(model, TrunkCache(10**9), data), run(model, None, data))


def test_only_what_lies_above_the_cut_is_awake(build_tiny, tiny_batch):
    """With or without a cache, so that both draw the same dropout."""
    model = build_tiny()
    part = GroupSparseLoRA(rank=2, targets=r'decoder.*1\.ffn.*')
    part.inject(model, ForgettingTask(0, ('bag',), ('dress',), ()), seed=0)
    losses = []
    for cache in (None, TrunkCache(10**9), None):
        step = ForgettingStep(model, build_tap(model, cache), GSLoRA(), part).train()
        torch.manual_seed(0)
        batch = {FORGET: tiny_batch(2), RETAIN: tiny_batch(2)}
        losses.append(float(sum(step(copy.deepcopy(batch), 0).values())))
    assert losses[0] == losses[2] == pytest.approx(losses[1], rel=1e-5)
    below, above = model.decoder.layers
    assert not any(m.training for m in (*below.modules(), *above.self_attn.modules()))
    assert all(m.training for m in above.ffn.modules())


def detections(model, data):
    inputs, samples = data
    model.bbox_head.test_cfg['max_per_img'] = 12
    with torch.no_grad():
        found = model.eval().predict(inputs, copy.deepcopy(samples), rescale=False)
    return torch.stack(
        [torch.cat([f.pred_instances.bboxes, f.pred_instances.scores[:, None]], 1) for f in found]
    )


def remembered(model, cache, data):
    with build_tap(model, cache).remembering():
        return detections(model, data)


def test_evaluation_asks_the_cache_and_finds_the_same(family, preprocess):
    data = preprocess(family)
    wanted = detections(family, data)
    cache = TrunkCache(10**9)
    first = remembered(family, cache, data)
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-3)
    with counting(family) as calls:
        assert torch.equal(remembered(family, cache, data), first)
    assert calls == {'ffn 1': 4}
    assert torch.equal(detections(family, data), wanted)  # The detector is its own again.


def test_evaluation_is_cut_below_what_a_task_has_changed(build_tiny, preprocess):
    """Weights that changed once will change again: nothing is kept above them."""
    model = build_tiny()
    data = preprocess(model)
    cache = TrunkCache(10**9)
    remembered(model, cache, data)
    for _ in range(2):
        with torch.no_grad():
            model.decoder.layers[0].ffn.layers[1].weight.mul_(1.5)
        wanted = detections(model, data)
        with counting(model) as calls:
            found = remembered(model, cache, data)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
        assert 'encoder' not in calls
    assert calls == {'ffn 0': 4, 'self_attn 1': 4, 'ffn 1': 4}


def test_weights_that_a_hook_swaps_in_an_evaluation_are_seen(build_tiny, preprocess):
    """Before the first batch, and through ``data``, as averaging hooks do."""
    model = build_tiny()
    data = preprocess(model)
    cache = TrunkCache(10**9)
    remembered(model, cache, data)
    with build_tap(model, cache).remembering():
        for parameter in model.encoder.parameters():
            parameter.data.mul_(1.2)
        found = detections(model, data)
    torch.testing.assert_close(found, detections(model, data), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('auxiliary', [False, True])
def test_the_head_computes_the_layers_that_are_used(family, preprocess, auxiliary):
    """And gives to the bit what it gives for all of them."""
    family.eval()
    inputs, samples = preprocess(family)
    whole = Stream(slice(0, 4), StreamOptions(auxiliary=True))
    some = Stream(slice(0, 4), StreamOptions(auxiliary=auxiliary))
    seen = []
    handle = family.bbox_head.register_forward_hook(lambda m, i, out: seen.append(len(out[0])))
    with torch.no_grad():
        wanted = build_tap(family).forward(inputs, copy.deepcopy(samples), {FORGET: whole})[FORGET]
        found = build_tap(family).forward(inputs, copy.deepcopy(samples), {FORGET: some})[FORGET]
    handle.remove()
    assert seen == [2, 2 if auxiliary else 1]
    for name in ('logits', 'boxes', 'embeddings'):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    for name, value in found.losses.items():
        assert torch.equal(value, wanted.losses[name])


def test_padding_that_looks_like_pixels_is_told_apart(build_tiny, preprocess):
    """Black pixels are not padding, which the transformer masks."""
    model = build_tiny()
    train_only(model, UPPER)
    inputs, samples = preprocess(model)
    cache = TrunkCache(10**9)
    one = [slice(0, 1), slice(0, 1)]
    padded = inputs[1:2], [samples[1]]
    run(model, cache, padded, one)
    whole = inputs[1:2], [copy.deepcopy(samples[1])]
    whole[1][0].set_metainfo({'img_shape': whole[1][0].batch_input_shape})
    assert_close(run(model, cache, whole, one), run(model, None, whole, one))
