"""The classifier's heads against their definitions, and its three modes."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement

pytest.importorskip('timm')

from mmforget.models.classifiers import ViTClassifier  # noqa: E402
from mmforget.models.classifiers.heads import LinearHead, MarginHead, build_head  # noqa: E402

ARGS = dict(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def samples(*labels):
    made = [BaseDataElement() for _ in labels]
    for sample, label in zip(made, labels, strict=True):
        sample.set_field(torch.tensor([label]), 'gt_label')
    return made


def build(**options):
    torch.manual_seed(0)
    return ViTClassifier('vit_tiny_patch16_224', 5, timm_args=ARGS, **options).eval()


@pytest.mark.parametrize('kind', ['cosface', 'arcface'])
def test_margins(kind):
    torch.manual_seed(0)
    head = MarginHead(8, 4, kind, scale=10.0, margin=0.3)
    embeddings, labels = torch.randn(3, 8), torch.tensor([1, 0, 3])
    cosines = F.cosine_similarity(embeddings[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(embeddings), 10 * cosines)
    scores = head(embeddings, labels)
    for image, label in enumerate(labels):
        for name in range(4):
            want = cosines[image, name]
            if name == label and kind == 'cosface':
                want = want - 0.3
            elif name == label:
                want = torch.cos(torch.acos(want) + 0.3)
            torch.testing.assert_close(scores[image, name], 10 * want)


def test_arcface_falls_with_the_angle_everywhere():
    head = MarginHead(2, 1, 'arcface', scale=1.0, margin=0.5)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0]]))
    angles = torch.linspace(0.01, math.pi - 0.01, 50)
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = head(embeddings, torch.zeros(50, dtype=torch.long))[:, 0]
    assert (scores.diff() < 0).all()


def test_modes():
    model = build(head=dict(type='cosface'))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        scores = model(images)
        assert scores.shape == (2, 5)
        found = model(images, samples(1, 4), mode='predict')
        torch.testing.assert_close(found[1].pred_scores, scores[1].softmax(0))
        embeddings = model.extract_feat(images)[0]
        assert embeddings.shape == (2, 32)
        want = F.cross_entropy(model.head(embeddings, torch.tensor([1, 4])), torch.tensor([1, 4]))
        torch.testing.assert_close(model(images, samples(1, 4), mode='loss')['loss_cls'], want)
        assert want > F.cross_entropy(scores, torch.tensor([1, 4])), 'the margin makes it harder'


def test_heads_by_config():
    assert isinstance(build_head(8, 3, {'type': 'linear'}), LinearHead)
    assert build_head(8, 3, {'type': 'arcface', 'margin': 0.5}).margin == 0.5
    for config in ({'type': 'softmax'}, {'type': 'linear', 'scale': 3}):
        with pytest.raises(ValueError, match='head='):
            build_head(8, 3, config)
    with pytest.raises(ValueError, match="kind='sphere'"):
        MarginHead(8, 3, 'sphere')
