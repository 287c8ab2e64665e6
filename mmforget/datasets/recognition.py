"""Images with one class each, in the form that the streams of a detector's data have."""

from abc import abstractmethod
from typing import Any

from mmengine.dataset import BaseDataset


class RecognitionDataset(BaseDataset):
    """Base of data sets for recognition; a subclass says which images there are.

    An image's class stands in ``gt_label``, and once more as the label of the image's one instance:
    so streams, class subsets and few-shot sampling are those of detection.

    Args:
        **kwargs: Those of MMEngine's BaseDataset.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    @abstractmethod
    def load_images(self) -> list[dict[str, Any]]:
        """For each image ``gt_label``, and ``img_path`` or ``img`` (H, W, 3) in BGR."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """The images with their instances."""
        return [
            {
                **image,
                'img_id': index,
                'sample_idx': index,
                'instances': [{'bbox_label': image['gt_label'], 'ignore_flag': 0}],
            }
            for index, image in enumerate(self.load_images())
        ]
