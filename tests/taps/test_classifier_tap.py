"""A bound for each image of a classifier."""

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip('timm')

from mmforget.taps import Stream, StreamOptions, build_tap  # noqa: E402


@pytest.fixture
def classified():
    """A small classifier's tap, and a function that gives its output under some options."""
    from mmengine.structures import BaseDataElement

    from mmforget.models.classifiers import ViTClassifier

    torch.manual_seed(0)
    args = dict(img_size=28, patch_size=14, embed_dim=12, depth=1, num_heads=2)
    model = ViTClassifier(model_name='vit_tiny_patch16_224', timm_args=args, num_classes=3).eval()
    samples = [BaseDataElement(gt_label=torch.tensor([i % 3])) for i in range(4)]
    images = torch.randn(4, 3, 28, 28)

    def output(**options):
        stream = Stream(slice(0, 4), StreamOptions(**options))
        with torch.no_grad():
            return build_tap(model).forward(images, samples, {'forget': stream})['forget']

    return output


LABELS = torch.tensor([0, 1, 2, 0])


def test_a_bound_holds_for_each_image(classified):
    plain = classified(matched_only=True)
    each = cross_entropy(plain.logits[:, 0], LABELS, reduction='none')
    bound = float(each.median())
    found = classified(matched_only=True, bound=bound).losses['loss_cls']
    assert found < plain.losses['loss_cls']
    torch.testing.assert_close(found, each.clamp(max=bound).mean())


def test_log_odds_are_those_against_all_other_classes(classified):
    probabilities = classified(matched_only=True).logits[:, 0].softmax(dim=1)
    true = probabilities[range(4), LABELS]
    each = ((1 - true) / true).log()
    found = classified(true_class_only=True, log_odds=True).losses['loss_cls']
    torch.testing.assert_close(found, each.mean())
    bound = float(each.median())
    found = classified(true_class_only=True, log_odds=True, bound=bound).losses['loss_cls']
    torch.testing.assert_close(found, each.clamp(max=bound).mean())
