"""The low-rank layer for convolutions.

The kernel (out, channels, height, width), read as a matrix ``W`` (out, in) with ``in = channels *
height * width``, moves by ``s B A``. So ``A`` is a convolution of its own to ``rank`` channels, and
``B`` a 1×1 convolution of what it gives, as in peft.

As in the linear layer, the sum is formed once per parameter version and convolved once, and the
backward pass forms no gradient of the sum: ``A`` and ``B`` get theirs through maps of ``rank``
channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .low_rank import LowRankLayer, applies_its_weight, no_autocast


class _SumConv2d(torch.autograd.Function):
    """A convolution with the ready sum ``W + s B A``; gradients go to x, A and B only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        lora_A: Tensor,
        lora_B: Tensor,
        owner: LoRAConv2d,
    ) -> Tensor:
        need_x, _, _, need_A, need_B, *_ = ctx.needs_input_grad
        ctx.scaling = owner.scaling
        ctx.geometry = (owner.stride, owner.padding, owner.dilation)
        ctx.kernel_shape = weight.shape
        ctx.owner = None if torch.compiler.is_compiling() else owner
        ctx.save_for_backward(
            x,  # the gradient of x wants its shape
            weight if need_x else None,
            lora_A if need_B else None,
            lora_B if need_A else None,
        )
        ctx.adapter_dtypes = (lora_A.dtype, lora_B.dtype)
        return F.conv2d(x, weight, bias, *ctx.geometry)

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
            if weight is not None:
                grad_x = _backward(grad, x, weight, ctx.geometry, of_input=True)
            if lora_B is not None:
                down = F.conv2d(grad, lora_B.t().to(grad.dtype)[:, :, None, None].contiguous())
                like = x.new_empty(lora_B.shape[1], *ctx.kernel_shape[1:])
                grad_A = _backward(down, x, like, ctx.geometry, of_input=False).flatten(1)
                grad_A = grad_A.to(dtype_A) * ctx.scaling
            if lora_A is not None:
                kernel = lora_A.to(x.dtype).view(-1, *ctx.kernel_shape[1:])
                up = F.conv2d(x, kernel, None, *ctx.geometry)
                thin = _by_channel(up) @ _by_channel(grad).t()
                grad_B = (thin.to(dtype_B) * ctx.scaling).t().contiguous()
        return grad_x, None, None, grad_A, grad_B, None


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], of_input: bool
) -> Tensor:
    """The gradient of a convolution's input, or of its weight."""
    stride, padding, dilation = geometry
    gradients = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        list(stride),
        list(padding),
        list(dilation),
        False,
        [0, 0],
        1,
        [of_input, not of_input, False],
    )
    return gradients[0] if of_input else gradients[1]


def _by_channel(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (C, N * H * W)."""
    return maps.transpose(0, 1).flatten(1)


class LoRAConv2d(LowRankLayer, nn.Conv2d):
    """A convolution with a frozen kernel and a low-rank update; see :class:`LowRankLayer`.

    ``lora_A`` is (rank, channels * height * width), ``lora_B`` (out, rank).

    Args:
        conv: The layer to replace. Any subclass of ``nn.Conv2d`` that is called as ``layer(x)``,
            without groups, padded with zeros by numbers of its own.
        rank: Rank of the update, 1 to min(out, channels * height * width).
        alpha: Numerator of the scaling ``alpha / rank``; positive.
        generator: Source of the draw of ``lora_A``.

    Raises:
        TypeError: ``conv`` is no such layer, or carries an adapter already.
        ValueError: ``rank`` or ``alpha`` is out of range.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
    ) -> None:
        if not can_adapt_conv(conv) or isinstance(conv, LowRankLayer):
            raise TypeError(
                f'cannot put an adapter on {conv!r}: expected an nn.Conv2d without one, with '
                "groups=1, padding_mode='zeros' and padding given as numbers. Leave the layer out "
                'of the targets.'
            )
        LowRankLayer.__init__(self, conv, rank, alpha, generator)
        self.in_channels = conv.in_channels
        self.out_channels = conv.out_channels
        self.kernel_size = conv.kernel_size
        self.stride = conv.stride
        self.padding = conv.padding
        self.dilation = conv.dilation
        self.transposed = False
        self.output_padding = conv.output_padding
        self.groups = 1
        self.padding_mode = 'zeros'

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (N, channels, H, W).

        Returns:
            (N, out, H', W').

        Raises:
            RuntimeError: The base weight or bias has been set to require a gradient, which this
                layer never gives.
        """
        geometry = (self.stride, self.padding, self.dilation)
        if self.merged or not self._enabled:
            return F.conv2d(x, self.weight, self.bias, *geometry)
        needs_grad = self._needs_grad(x)
        x, bias, dtype = self._in_compute_dtype(x)
        if not needs_grad:
            return F.conv2d(x, self._sum(dtype), bias, *geometry)
        return _SumConv2d.apply(x, self._sum(dtype), bias, self.lora_A, self.lora_B, self)


def can_adapt_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`LoRAConv2d` can replace."""
    return (
        isinstance(module, nn.Conv2d)
        and applies_its_weight(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == 'zeros'
        and not isinstance(module.padding, str)
    )
