"""What may move: one trainable part a file."""

from mmforget.trainable.base import TrainablePart, drop_from_optimizer
from mmforget.trainable.combined import CombinedParts
from mmforget.trainable.group_sparse_lora import GroupSparseLoRA
from mmforget.trainable.random_drop import RandomDrop
from mmforget.trainable.reinitialised import Reinitialised, drawn_weights, fetch_nothing
from mmforget.trainable.sparsity import TrialPlan
from mmforget.trainable.whole_weights import WholeWeights

__all__ = [
    'CombinedParts',
    'GroupSparseLoRA',
    'RandomDrop',
    'Reinitialised',
    'TrainablePart',
    'TrialPlan',
    'WholeWeights',
    'drawn_weights',
    'drop_from_optimizer',
    'fetch_nothing',
]
