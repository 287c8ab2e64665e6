"""The low-rank layer: a linear layer whose weight may move by a matrix of small rank.

The layer computes ``y = x (W + s B A)^T + b`` with ``W`` (out, in) frozen, ``A`` (rank, in), ``B``
(out, rank) and ``s = alpha / rank`` (LoRA, arXiv 2106.09685, eq. 3; the form used for forgetting by
arXiv 2403.11530, section 4.1).

Other implementations send every token through three matrix products. Here the sum ``W + s B A`` is
formed once per parameter version and multiplied once, and the backward pass never forms the (out,
in) gradient of the sum. Only a batch that is smaller than the layer goes through the frozen product
and two thin ones: forming the sum would cost more multiply-adds (``operation_count``).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .low_rank import LowRankLayer, no_autocast
from .operation_count import Gradients, LowRankShape, sum_pays


def _thin(tokens: Tensor, matrix: Tensor) -> Tensor:
    """(tokens, channels) times a (rank, channels) matrix, transposed: (tokens, rank)."""
    # CPU libraries take twice as long where the short side of the matrix is the contiguous one.
    return F.linear(tokens, matrix.to(tokens.dtype).contiguous())


def _thin_gradient(thin: Tensor, tokens: Tensor) -> Tensor:
    """(tokens, rank) and (tokens, channels) summed over tokens: (rank, channels).

    In this order: the other one, which gives (channels, rank), takes CPU libraries ten times as
    long for some thousand tokens.
    """
    return thin.t() @ tokens


class _SumLinear(torch.autograd.Function):
    """``F.linear`` with the ready sum ``W + s B A``; gradients go to x, A and B only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        scaling: float,
        owner: LoRALinear | None,
    ) -> Tensor:
        need_x, _, _, need_A, need_B, *_ = ctx.needs_input_grad
        ctx.scaling = scaling
        ctx.owner = owner
        # The weight is the shared cached sum, so it costs nothing per call.
        ctx.save_for_backward(
            x if need_A or need_B else None,
            weight if need_x else None,
            lora_A if need_B else None,
            lora_B if need_A else None,
        )
        # A and B enter the gradients of one another; their dtypes are those of the parameters.
        ctx.adapter_dtypes = (lora_A.dtype, lora_B.dtype)
        out = F.linear(x, weight, bias)
        # For 3-D inputs torch returns a view of a 2-D product, and autograd forbids what FFNs do
        # next: change a custom function's view in place (ReLU). Same storage, no longer a view.
        return torch.ops.aten._unsafe_view.default(out, out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lora_A, lora_B = ctx.saved_tensors
        dtype_A, dtype_B = ctx.adapter_dtypes
        if ctx.owner is not None:
            # A step is likely to follow, and not every optimiser moves the version counters.
            ctx.owner.refresh()
        grad_x = grad_A = grad_B = None
        with no_autocast(grad.device.type):
            rows = grad.reshape(-1, grad.shape[-1])
            if weight is not None:
                grad_x = (rows @ weight).reshape(*grad.shape[:-1], weight.shape[1])
            if x is not None:
                tokens = x.reshape(-1, x.shape[-1])
                # Both products go through a tokens x rank matrix; (out, in) never appears.
                if lora_B is not None:
                    down = _thin(rows, lora_B.t())
                    grad_A = _thin_gradient(down, tokens).to(dtype_A) * ctx.scaling
                if lora_A is not None:
                    up = _thin(tokens, lora_A)
                    grad_B = (_thin_gradient(up, rows).to(dtype_B) * ctx.scaling).t()
                    grad_B = grad_B.contiguous()
        return grad_x, None, None, grad_A, grad_B, None, None


class _TwoProductLinear(torch.autograd.Function):
    """``F.linear`` with the frozen ``W``, and ``s B A`` as two thin products added in place."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        scaling: float,
        owner: LoRALinear | None,
    ) -> Tensor:
        need_x, _, _, need_A, need_B, *_ = ctx.needs_input_grad
        ctx.scaling = scaling
        ctx.owner = owner
        up = _thin(x.reshape(-1, x.shape[-1]), lora_A)
        out = F.linear(x, weight, bias)
        rows = out.reshape(-1, out.shape[-1])
        rows.addmm_(up, lora_B.to(x.dtype).t(), alpha=scaling)
        ctx.save_for_backward(
            x if need_A else None,
            weight if need_x else None,
            lora_A if need_x else None,
            lora_B if need_x or need_A else None,
            up if need_B else None,
        )
        ctx.adapter_dtypes = (lora_A.dtype, lora_B.dtype)
        return torch.ops.aten._unsafe_view.default(rows, out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lora_A, lora_B, up = ctx.saved_tensors
        dtype_A, dtype_B = ctx.adapter_dtypes
        if ctx.owner is not None:
            ctx.owner.refresh()
        grad_x = grad_A = grad_B = None
        with no_autocast(grad.device.type):
            rows = grad.reshape(-1, grad.shape[-1])
            if lora_B is not None:
                down = _thin(rows, lora_B.t())
                if weight is not None:
                    grad_x = rows @ weight
                    grad_x.addmm_(down, lora_A.to(rows.dtype), alpha=ctx.scaling)
                    grad_x = grad_x.reshape(*grad.shape[:-1], weight.shape[1])
                if x is not None:
                    tokens = x.reshape(-1, x.shape[-1])
                    grad_A = _thin_gradient(down, tokens).to(dtype_A) * ctx.scaling
            if up is not None:
                grad_B = (_thin_gradient(up, rows).to(dtype_B) * ctx.scaling).t()
                grad_B = grad_B.contiguous()
        return grad_x, None, None, grad_A, grad_B, None, None


class LoRALinear(LowRankLayer, nn.Linear):
    """A linear layer with a frozen weight and a low-rank update; see :class:`LowRankLayer`.

    Where gradients flow and the batch is smaller than the layer, the sum is not formed: the frozen
    product and two thin ones take fewer multiply-adds. Shapes alone decide, so that a call that is
    repeated for activation checkpointing, or after a resume, takes the same form. Without
    gradients the sum serves every call until the weights move, and is always formed.

    Args:
        linear: The layer to replace. Any subclass of ``nn.Linear`` that is called as ``layer(x)``.
        rank: Rank of the update, 1 to min(in, out).
        alpha: Numerator of the scaling ``alpha / rank``; positive.
        generator: Source of the draw of ``lora_A``.

    Raises:
        TypeError: ``linear`` is not an ``nn.Linear``, or is a ``LoRALinear`` already.
        ValueError: ``rank`` or ``alpha`` is out of range.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(linear, nn.Linear) or isinstance(linear, LowRankLayer):
            raise TypeError(
                f'cannot put an adapter on a {type(linear).__name__}: expected an nn.Linear '
                'without one. Remove the old adapter first if there is one.'
            )
        LowRankLayer.__init__(self, linear, rank, alpha, generator)
        self.in_features = linear.in_features
        self.out_features = linear.out_features

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
    ) -> LoRALinear:
        """Build the layer that replaces ``linear``; see the class for the arguments."""
        return cls(linear, rank, alpha, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (..., in).

        Returns:
            (..., out).

        Raises:
            RuntimeError: The base weight or bias has been set to require a gradient, which this
                layer never gives.
        """
        if self.merged or not self._enabled:
            return F.linear(x, self.weight, self.bias)
        needs_grad = self._needs_grad(x)
        x, bias, dtype = self._in_compute_dtype(x)
        if not needs_grad:
            return F.linear(x, self._sum(dtype), bias)
        # A compiled backward pass touches no Python object; nothing is cached there to be dropped.
        owner = None if torch.compiler.is_compiling() else self
        rest = (bias, self.lora_A, self.lora_B, self.scaling, owner)
        if self._sum_pays(x):
            return _SumLinear.apply(x, self._sum(dtype), *rest)
        return _TwoProductLinear.apply(x, self.weight.to(dtype), *rest)

    def _sum_pays(self, x: Tensor) -> bool:
        """Whether a call with gradients takes the sum form.

        How many calls will share the sum is not known beforehand, so one is counted.
        """
        shape = LowRankShape(self.in_features, self.out_features, self.rank)
        gradients = Gradients(x.requires_grad, self.lora_A.requires_grad, self.lora_B.requires_grad)
        return sum_pays(shape, x.numel() // self.in_features, gradients)
