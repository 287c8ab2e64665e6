"""The one module whose forward every gradient passes through."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmforget.methods import FORGET, RETAIN, ForgettingMethod
from mmforget.taps import Stream, Tap
from mmforget.trainable import TrainablePart


class ForgettingStep(nn.Module):
    """Detector, tap, method and trainable part: a batch of both streams in, losses out.

    It alone is wrapped for distributed training and compiled; the runner's model stays the plain
    detector, whose checkpoints everyone can read.

    Args:
        detector: The plain detector, trainable part injected.
        tap: Reads the detector.
        method: The objective.
        trainable: What may move; its penalty joins the losses.
    """

    def __init__(
        self, detector: BaseModel, tap: Tap, method: ForgettingMethod, trainable: TrainablePart
    ) -> None:
        super().__init__()
        self.detector = detector
        self.tap = tap
        self.method = method
        self.trainable = trainable

    def train(self, mode: bool = True) -> 'ForgettingStep':
        """Training mode without waking what is frozen: BatchNorm statistics and the trunk."""
        super().train(mode)
        if mode:
            for module in self.detector.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
            self._still_trunk()
        return self

    def _still_trunk(self) -> None:
        """Dropout stays off below the cut; pruning may have moved the cut upwards."""
        for module in self.tap.trunk():
            if module.training:
                module.eval()

    def forward(
        self, batch: Mapping[str, dict[str, Sequence[Any]]], step: int
    ) -> dict[str, Tensor]:
        """Runs both streams through the network as one batch.

        Args:
            batch: ``{'forget': data, 'retain': data}``, as the dataloaders collate them.
            step: Steps done in this task.

        Returns:
            Named scalars; those with ``loss`` in their name make up the objective.
        """
        if self.training:
            self._still_trunk()
        sizes = [len(batch[name]['inputs']) for name in (FORGET, RETAIN)]
        data = {
            key: [item for name in (FORGET, RETAIN) for item in batch[name][key]]
            for key in ('inputs', 'data_samples')
        }
        data = self.detector.data_preprocessor(data, training=True)
        slices = {FORGET: slice(0, sizes[0]), RETAIN: slice(sizes[0], sum(sizes))}
        samples = [
            sample
            for name in (FORGET, RETAIN)
            for sample in self.method.targets(name, data['data_samples'][slices[name]])
        ]
        streams = {name: Stream(slices[name], self.method.stream_options(name)) for name in slices}
        outputs = self.tap.forward(data['inputs'], samples, streams)
        losses = self.method.losses(outputs[FORGET], outputs[RETAIN])
        penalty = self.trainable.penalty(step)
        if penalty is not None:
            losses['loss_sparsity'] = penalty
        return losses
