"""What may move: one trainable part a file."""

from mmforget.trainable.base import TrainablePart, drop_from_optimizer
from mmforget.trainable.combined import CombinedParts
from mmforget.trainable.group_sparse_lora import GroupSparseLoRA
from mmforget.trainable.sparsity import TrialPlan

__all__ = [
    'CombinedParts',
    'GroupSparseLoRA',
    'TrainablePart',
    'TrialPlan',
    'drop_from_optimizer',
]
