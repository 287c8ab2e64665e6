"""A step of the recipe as its authors run it (arXiv 2403.11530), written as plain code.

Two forwards, the whole trunk every time, MMDetection's own losses of the last decoder layer, the
penalty by a loop over parameter names, AdamW.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmforget.adapters import block_of
from mmforget.benchmarks.measurement import Action, Detail
from mmforget.methods import FORGET, RETAIN

Batch = Mapping[str, Mapping[str, Sequence[Any]]]

_LOSSES = ('loss_cls', 'loss_bbox', 'loss_iou')


@dataclass(frozen=True)
class Recipe:
    """The recipe's numbers; by default those of its authors' detection runs.

    Attributes:
        forget_weight: β.
        bound: Where the forgetting loss stops growing.
        sparsity: α.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
    """

    forget_weight: float = 0.15
    bound: float = 15.0
    sparsity: float = 3e-4
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    clip: float = 0.1


class RecipeStep(Action):
    """One optimiser step on the next of a few batches.

    Args:
        detector: What is to be trained requires a gradient.
        batches: Taken in turn.
        recipe: The numbers.
        dtype: Below float32 the forward runs under autocast.
        penalty: The model -> the group penalty; ``None`` without groups.
    """

    def __init__(
        self,
        detector: nn.Module,
        batches: Sequence[Batch],
        recipe: Recipe,
        dtype: torch.dtype = torch.float32,
        penalty: Callable[[nn.Module], Tensor] | None = None,
    ) -> None:
        # BatchNorm stays as the config says (norm_eval); nothing else is kept still.
        self.detector = detector.train()
        self.batches = batches
        self.recipe = recipe
        self.dtype = dtype
        self.penalty = penalty
        self.parameters = [p for p in detector.parameters() if p.requires_grad]
        self.trainable = sum(p.numel() for p in self.parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.steps = 0
        self.first_loss = math.nan

    def __call__(self) -> None:
        self.step(self.batches[self.steps % len(self.batches)])

    def step(self, batch: Batch) -> None:
        """Trains on one batch."""
        recipe = self.recipe
        device = next(self.detector.parameters()).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            forget = self._losses(batch[FORGET])
            retain = self._losses(batch[RETAIN])
            total = sum(retain[name] for name in _LOSSES)
            total = total + recipe.forget_weight * (
                torch.relu(recipe.bound - forget['loss_cls'])
                + forget['loss_bbox']
                + forget['loss_iou']
            )
        if self.penalty is not None:
            total = total + recipe.sparsity * self.penalty(self.detector)
        loss = total.item()
        if not math.isfinite(loss):
            raise FloatingPointError(f'The loss is {loss} after {self.steps} steps.')
        if not self.steps:
            self.first_loss = loss
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.steps += 1

    def _losses(self, data: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
        detector = self.detector
        data = detector.data_preprocessor(dict(data), training=True)
        samples = data['data_samples']
        features = detector.extract_feat(data['inputs'])
        head_inputs = detector.forward_transformer(features, samples)
        of_encoder = [head_inputs.pop(f'enc_outputs_{kind}') for kind in ('class', 'coord')]
        scores, boxes = detector.bbox_head(**head_inputs)
        # Matching and losses know no half precision.
        with torch.autocast(scores.device.type, enabled=False):
            return detector.bbox_head.loss_by_feat(
                scores[-1:].float(),
                boxes[-1:].float(),
                *of_encoder,
                [sample.gt_instances for sample in samples],
                [sample.metainfo for sample in samples],
            )

    def details(self) -> dict[str, Detail]:
        return {'first loss': round(self.first_loss, 4)}


def penalty_by_name(model: nn.Module) -> Tensor:
    """Sum over transformer blocks of the norm of all their adapters' matrices."""
    squares: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if 'lora_' in name:
            block = block_of(name)
            squares[block] = squares.get(block, 0) + parameter.pow(2).sum()
    return sum(square.sqrt() for square in squares.values())
