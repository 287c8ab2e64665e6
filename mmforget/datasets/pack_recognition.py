"""The end of a recognition pipeline: an image and its class as a model wants them."""

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement

from mmforget.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackRecognition(BaseTransform):
    """Makes ``inputs`` (3, H, W) and a sample with ``gt_label`` (1,).

    Args:
        meta_keys: What the sample tells of the image besides.
    """

    def __init__(self, meta_keys: tuple[str, ...] = ('img_id', 'img_path', 'img_shape')) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one image."""
        pixels = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        sample = BaseDataElement(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        sample.set_field(torch.tensor([results['gt_label']]), 'gt_label')
        return {'inputs': torch.from_numpy(pixels), 'data_samples': sample}
