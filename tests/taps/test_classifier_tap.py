"""A bound for each image of a classifier."""

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip('timm')

from mmforget.taps import Stream, StreamOptions, build_tap  # noqa: E402


def test_a_bound_holds_for_each_image():
    from mmengine.structures import BaseDataElement

    from mmforget.models.classifiers import ViTClassifier

    torch.manual_seed(0)
    args = dict(img_size=28, patch_size=14, embed_dim=12, depth=1, num_heads=2)
    model = ViTClassifier(model_name='vit_tiny_patch16_224', timm_args=args, num_classes=3).eval()
    samples = [BaseDataElement(gt_label=torch.tensor([i % 3])) for i in range(4)]
    images = torch.randn(4, 3, 28, 28)
    tap = build_tap(model)
    with torch.no_grad():
        stream = Stream(slice(0, 4), StreamOptions(matched_only=True))
        plain = tap.forward(images, samples, {'forget': stream})['forget']
        labels = torch.tensor([0, 1, 2, 0])
        each = cross_entropy(plain.logits[:, 0], labels, reduction='none')
        bound = float(each.median())
        stream = Stream(slice(0, 4), StreamOptions(matched_only=True, bound=bound))
        found = tap.forward(images, samples, {'forget': stream})['forget'].losses['loss_cls']
    assert found < plain.losses['loss_cls']
    torch.testing.assert_close(found, each.clamp(max=bound).mean())
