"""A vision transformer that names what an image shows."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor

from mmforget.models.classifiers.heads import build_head
from mmforget.models.timm_import import import_timm
from mmforget.registry import MODELS


@MODELS.register_module()
class ViTClassifier(BaseModel):
    """timm's vision transformer with a head of its own.

    Args:
        model_name: timm's name.
        num_classes: Number of classes.
        head: ``dict(type='linear')``, or ``dict(type='cosface' or 'arcface', scale=, margin=)``.
        pretrained: Whether the transformer's weights come from timm's hub.
        timm_args: Further arguments of timm's model (``img_size``, ``patch_size``, ``depth``).
        data_preprocessor: MMEngine's.
        init_cfg: MMEngine's.

    Attributes:
        backbone: timm's model without a classifier: images to embeddings.
        input_size: Height and width of the images that it takes.
        head: Embeddings to scores.

    Raises:
        ImportError: timm is not installed.
        ValueError: The head's type is unknown.
    """

    with_neck = False

    def __init__(
        self,
        model_name: str,
        num_classes: int,
        head: dict[str, Any] | None = None,
        pretrained: bool = False,
        timm_args: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = import_timm().create_model(
            model_name, pretrained=pretrained, num_classes=0, **(timm_args or {})
        )
        self.num_classes = num_classes
        self.input_size = tuple(self.backbone.patch_embed.img_size)
        self.head = build_head(self.backbone.num_features, num_classes, head or {'type': 'linear'})

    def init_weights(self) -> None:
        """Loads what ``init_cfg`` says; the transformer has drawn its own weights already."""
        if self.init_cfg:
            super().init_weights()

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
        """Embeddings (B, D) of images (B, 3, H, W)."""
        return (self.backbone(inputs),)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Any:
        """MMEngine's three modes.

        Args:
            inputs: Preprocessed images, (B, 3, H, W).
            data_samples: One per image, with ``gt_label`` (1,) for ``'loss'``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'`` (scores without a margin).
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.head(*self.extract_feat(inputs))

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Cross-entropy of the head's scores, with its margin."""
        labels = labels_of(data_samples).to(inputs.device)
        scores = self.head(*self.extract_feat(inputs), labels)
        return {'loss_cls': F.cross_entropy(scores, labels)}

    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> Sequence[Any]:
        """The samples with ``pred_scores`` (C,), without a margin."""
        scores = self.head(*self.extract_feat(inputs))
        for sample, of_image in zip(data_samples, scores, strict=True):
            sample.set_field(of_image.softmax(dim=0), 'pred_scores')
        return data_samples


def labels_of(data_samples: Sequence[Any]) -> Tensor:
    """The true classes, (B,)."""
    return torch.cat([sample.gt_label for sample in data_samples])
