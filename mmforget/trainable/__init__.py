"""What may move: one trainable part a file."""

from mmforget.trainable.base import TrainablePart, drop_from_optimizer
from mmforget.trainable.group_sparse_lora import GroupSparseLoRA

__all__ = ['GroupSparseLoRA', 'TrainablePart', 'drop_from_optimizer']
