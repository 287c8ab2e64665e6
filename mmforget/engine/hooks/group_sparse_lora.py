"""Injects group-sparse LoRA (arXiv 2403.11530)."""

from collections.abc import Sequence
from typing import Any

from mmforget.engine.hooks.trainable import TrainableHook
from mmforget.registry import HOOKS
from mmforget.trainable import GroupSparseLoRA


@HOOKS.register_module()
class GroupSparseLoRAHook(TrainableHook):
    """Low-rank adapters on chosen layers, in groups that live or die together.

    Args:
        rank: Rank of every adapter.
        alpha: Numerator of the scale alpha / rank.
        targets: ``'ffn'``, ``'attention'``, ``'conv'``, ``'head'``, module names, a regex, or a
            list of these.
        group_by: ``'block'``, ``'stage'``, ``'adapter'`` or ``'matrix'``.
        sparsity: The paper's α (a number), the config of a sparsity
            (``dict(type='GroupSelection', ...)``), or ``None``.
        within: Path of the part of the detector whose layers count. Two of these hooks, one within
            ``'backbone'`` and one within ``'decoder'``, have a rank and a sparsity each.
        init: ``'lora'`` (B = 0), or ``'authors'`` for the noise that their detection code begins
            with (spec B.1).
    """

    priority = 'NORMAL'

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 1.0,
        targets: str | Sequence[str] = 'ffn',
        group_by: str = 'block',
        sparsity: float | dict[str, Any] | None = None,
        within: str | None = None,
        init: str = 'lora',
    ) -> None:
        self.config = {
            'rank': rank,
            'alpha': alpha,
            'targets': targets,
            'group_by': group_by,
            'sparsity': sparsity,
            'within': within,
            # Runs from before there was a choice can be resumed.
            **({} if init == 'lora' else {'init': init}),
        }
        self.build()  # Errors in the arguments show before any work.

    def build(self) -> GroupSparseLoRA:
        return GroupSparseLoRA(**self.config)
