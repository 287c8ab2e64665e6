"""Grounding DINO, where its language model builds: layers by structure, the same output."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.hub import get_config

transformers = pytest.importorskip('transformers')

from mmforget.structures import ForgettingTask  # noqa: E402
from mmforget.taps import build_tap  # noqa: E402
from mmforget.trainable import GroupSparseLoRA  # noqa: E402

WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?', 'person', 'bicycle')


@pytest.fixture(scope='module')
def language_model(tmp_path_factory):
    """A BERT of two layers with a vocabulary of nine words, in a folder as a hub gives it."""
    folder = tmp_path_factory.mktemp('bert')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS))
    tokenizer = transformers.BertTokenizerFast(
        vocab={word: index for index, word in enumerate(WORDS)}
    )
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
    )
    torch.manual_seed(0)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def detector(language_model):
    register_all_modules(init_default_scope=True)
    config = get_config('mmdet::grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py').model
    config.language_model.name = str(language_model)
    config.backbone.init_cfg = None
    config.num_queries = 20  # Of images as small as these, the encoder proposes 85.
    config.test_cfg.max_per_img = 20
    config.encoder.num_cp = 0  # Asks for fairscale; the forward is the same without.
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    tokenizer = model.language_model.tokenizer
    if not hasattr(tokenizer, 'batch_encode_plus'):
        speak_to_transformers_5(model.language_model)
    return model


def speak_to_transformers_5(language_model):
    """mmdet 3.3 calls a method that is gone, and its masks of phrases lack a dimension."""
    language_model.tokenizer.batch_encode_plus = language_model.tokenizer

    def with_heads(module, args, kwargs):
        return args, kwargs | {'attention_mask': kwargs['attention_mask'][:, None].bool()}

    bert = language_model.language_backbone.body.model
    bert.register_forward_pre_hook(with_heads, with_kwargs=True)


@torch.no_grad()
def scores(detector):
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(64, 64),
            ori_shape=(64, 64),
            batch_input_shape=(64, 64),
            scale_factor=(1.0, 1.0),
            text=('person', 'bicycle'),
            custom_entities=True,
        )
    )
    torch.manual_seed(0)
    (found,) = detector.predict(torch.randn(1, 3, 64, 64), [sample])
    return found.pred_instances.scores


@pytest.mark.slow
def test_ffn_by_structure_and_the_same_output(detector):
    before = scores(detector)
    part = GroupSparseLoRA(8)
    part.inject(detector, ForgettingTask(0, ('person',), ('bicycle',), ()), 0)
    assert torch.equal(scores(detector), before)
    stacks = {name.partition('.layers')[0].rpartition('.')[0] for name in part.groups}
    assert len(part.groups) >= 12, part.groups
    assert not any('language' in name for name in part.groups), stacks


@pytest.mark.slow
def test_no_tap_reads_it(detector):
    with pytest.raises(TypeError, match='GroundingDINO'):
        build_tap(detector)
