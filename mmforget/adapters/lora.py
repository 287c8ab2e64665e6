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

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim.optimizer import register_optimizer_step_post_hook

from .operation_count import Gradients, LowRankShape, sum_pays


def check_rank(rank: int, in_features: int, out_features: int, name: str = '') -> None:
    """Check that a rank is a whole number between 1 and the smaller side of the weight.

    Args:
        rank: The rank asked for.
        in_features: Columns of the weight.
        out_features: Rows of the weight.
        name: Name of the layer for the message.

    Raises:
        ValueError: ``rank`` is out of range or not an int.
    """
    limit = min(in_features, out_features)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= limit:
        where = f" of layer '{name}'" if name else ''
        raise ValueError(
            f'rank={rank!r} does not fit the weight{where}, which is ({out_features}, '
            f'{in_features}): expected a whole number from 1 to {limit}. Choose a smaller rank, or '
            'leave this layer out of the targets.'
        )


def updated_weight(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    """Form ``W + s B A`` as a new tensor.

    Forward, merge and fold all come through here, so that they add the same bits.

    Args:
        weight: ``W``, (out, in).
        lora_A: ``A``, (rank, in).
        lora_B: ``B``, (out, rank).
        scaling: ``s``.

    Returns:
        (out, in), in the dtype and on the device of ``weight``; the sum is taken in the wider of
        the dtypes.
    """
    dtype = torch.promote_types(weight.dtype, torch.promote_types(lora_A.dtype, lora_B.dtype))
    # Matrix products of the adapters must not be lowered by a surrounding autocast: they define the
    # weight.
    with _no_autocast(weight.device.type):
        total = torch.addmm(
            weight.to(dtype),
            lora_B.to(weight.device, dtype),
            lora_A.to(weight.device, dtype),
            alpha=scaling,
        )
    return total.to(weight.dtype)


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype of an active autocast on this device, or None."""
    # A compiler cannot trace the first question; the devices it knows have an autocast.
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)
    if known and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


@contextmanager
def _no_autocast(device_type: str) -> Iterator[None]:
    if _autocast_dtype(device_type) is None:
        yield
    else:
        with torch.autocast(device_type, enabled=False):
            yield


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
        with _no_autocast(grad.device.type):
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
        with _no_autocast(grad.device.type):
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


_steps = 0


def _count_step(*_: Any) -> None:
    """Note that an optimiser made a step: fused ones write without moving version counters."""
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


class _Cache:
    """The sum ``W + s B A`` for one state of the three tensors, by compute dtype."""

    def __init__(self, sources: tuple[Tensor, ...], scaling: float) -> None:
        self.sources = sources
        self.versions = tuple(source._version for source in sources)
        # The aliases keep the storages alive, so that an address cannot come back with other
        # content.
        self.aliases = tuple(source.detach() for source in sources)
        self.scaling = scaling
        self.steps = _steps
        self.sums: dict[torch.dtype, Tensor] = {}

    def fits(self, sources: tuple[Tensor, ...], scaling: float) -> bool:
        return (scaling, _steps) == (self.scaling, self.steps) and all(
            now is then
            and now._version == version
            and now.data_ptr() == alias.data_ptr()
            and now.device == alias.device
            and now.dtype == alias.dtype
            for now, then, version, alias in zip(
                sources, self.sources, self.versions, self.aliases, strict=True
            )
        )


class LoRALinear(nn.Linear):
    """A linear layer with a frozen weight and a low-rank update.

    It holds the same ``weight`` and ``bias`` Parameter objects as the layer it replaces, under the
    same names, plus ``lora_A`` (rank, in) and ``lora_B`` (out, rank). ``lora_A`` is drawn
    Kaiming-uniform with a = sqrt(5), ``lora_B`` is zero, so a fresh layer gives the same bits as
    the plain one (unlike the released code of arXiv 2403.11530, where the detector's initialiser
    overwrites both with noise).

    The sum ``W + s B A`` is kept until one of the tensors changes. A change is seen through the
    tensors' version counters, addresses, devices and dtypes; besides, the sum is dropped by every
    backward pass through the layer, every step of a torch optimiser, and every call of ``train()``,
    ``eval()`` or ``to()``. Other writes through ``parameter.data`` cannot be seen: call
    :meth:`refresh` after them.

    Where gradients flow and the batch is smaller than the layer, the sum is not formed: the frozen
    product and two thin ones take fewer multiply-adds. Shapes alone decide, so that a call that is
    repeated for activation checkpointing, or after a resume, takes the same form. Without
    gradients the sum serves every call until the weights move, and is always formed.

    Under ``torch.compile`` the sum is a part of the graph and formed in every call.

    Args:
        linear: The layer to replace. Any subclass of ``nn.Linear`` that is called as ``layer(x)``.
        rank: Rank of the update, 1 to min(in, out).
        alpha: Numerator of the scaling ``alpha / rank``; positive.
        generator: Source of the draw of ``lora_A``. The draw is made on the generator's device (CPU
            when None) in float32 and then moved, so that it is the same on all devices.

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
        nn.Module.__init__(self)  # nn.Linear.__init__ would allocate and fill a weight
        if not isinstance(linear, nn.Linear) or isinstance(linear, LoRALinear):
            raise TypeError(
                f'cannot put an adapter on a {type(linear).__name__}: expected an nn.Linear '
                'without one. Remove the old adapter first if there is one.'
            )
        check_rank(rank, linear.in_features, linear.out_features)
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f'alpha={alpha!r}: expected a positive number, e.g. 1.0')
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.rank = rank
        self.alpha = float(alpha)
        self.scaling = float(alpha) / rank
        self.weight = linear.weight
        self.register_parameter('bias', linear.bias)
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        like = dict(dtype=self.weight.dtype, device=self.weight.device)
        self.lora_A = nn.Parameter(torch.zeros(rank, self.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, **like))
        self._holder = (linear,)  # a tuple hides it from nn.Module, which would register it
        self._enabled = True
        self._before_merge: Tensor | None = None
        self._cache: _Cache | None = None
        self.training = linear.training
        self.reset(generator)

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

    # ---- state -----------------------------------------------------------------------------------

    @property
    def original(self) -> nn.Linear:
        """The replaced layer, holding this layer's present weight, bias and mode."""
        linear = self._holder[0]
        # load_state_dict(assign=True) and device moves may have swapped the Parameter objects here.
        linear.weight = self.weight
        linear.bias = self.bias
        linear.training = self.training
        return linear

    @property
    def merged(self) -> bool:
        """Whether the update is folded into ``weight`` at present."""
        return self._before_merge is not None

    @property
    def enabled(self) -> bool:
        """Whether the update takes part in the forward pass."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if self.merged and not value:
            raise RuntimeError(
                'this adapter is merged into its weight and cannot be switched off: call unmerge() '
                'first'
            )
        self._enabled = bool(value)

    def refresh(self) -> None:
        """Forget the cached sum. Needed only after writes through ``parameter.data``."""
        self._cache = None

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw ``lora_A`` anew (Kaiming-uniform, a = sqrt(5)) and set ``lora_B`` to zero.

        Raises:
            RuntimeError: The adapter is merged.
        """
        if self.merged:
            raise RuntimeError('this adapter is merged: call unmerge() before reset()')
        device = torch.device('cpu') if generator is None else generator.device
        draw = torch.empty(self.lora_A.shape, dtype=torch.float32, device=device)
        nn.init.kaiming_uniform_(draw, a=math.sqrt(5), generator=generator)
        self.lora_A.copy_(draw)
        self.lora_B.zero_()

    def delta(self) -> Tensor:
        """The update ``s B A``, (out, in), with gradient to both factors."""
        return self.scaling * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the update into ``weight`` in place; a copy of the old weight is kept for
        :meth:`unmerge`.

        Raises:
            RuntimeError: The adapter is merged already, or switched off.
        """
        if self.merged:
            raise RuntimeError('this adapter is merged already: merging adds the update only once')
        if not self.enabled:
            raise RuntimeError('this adapter is off: leave disable_adapters() before merge()')
        self._before_merge = self.weight.detach().clone()
        # A zero update leaves the very bits alone (W + 0 would turn -0.0 into 0.0).
        if self.lora_B.any():
            self.weight.copy_(updated_weight(self.weight, self.lora_A, self.lora_B, self.scaling))
        self._cache = None

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the weight back bit by bit as it was before :meth:`merge`.

        Raises:
            RuntimeError: The adapter is not merged.
        """
        if self._before_merge is None:
            raise RuntimeError('this adapter is not merged: there is nothing to take back')
        self.weight.copy_(self._before_merge)
        self._before_merge = None

    # ---- forward ---------------------------------------------------------------------------------

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
        needs_grad = torch.is_grad_enabled() and (
            x.requires_grad or self.lora_A.requires_grad or self.lora_B.requires_grad
        )
        if torch.is_grad_enabled() and (
            self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        ):
            raise RuntimeError(
                'the base weight or bias of a LoRALinear requires a gradient, but this layer '
                'trains only lora_A and lora_B: set requires_grad=False on weight and bias, or '
                'remove the adapter to train the weight'
            )
        bias = self.bias
        dtype = self.weight.dtype
        lowered = _autocast_dtype(x.device.type)
        # As autocast does for F.linear itself: float64 stays as it is.
        if lowered is not None and torch.float64 not in (x.dtype, dtype):
            dtype = lowered
            x = x.to(dtype)
            bias = None if bias is None else bias.to(dtype)
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

    def _sum(self, dtype: torch.dtype) -> Tensor:
        """``W + s B A`` in the compute dtype, formed anew only when a tensor changed."""
        sources = (self.weight, self.lora_A, self.lora_B)
        if torch.compiler.is_compiling():
            detached = tuple(source.detach() for source in sources)
            return updated_weight(*detached, self.scaling).to(dtype)
        # An inference tensor has no version counter to watch.
        watched = not any(source.is_inference() for source in sources)
        if watched and self._cache is not None and self._cache.fits(sources, self.scaling):
            ready = self._cache.sums.get(dtype)
            if ready is not None:
                return ready
        # A sum formed as an inference tensor could not be saved for a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            detached = tuple(source.detach() for source in sources)
            total = updated_weight(*detached, self.scaling).to(dtype)
            if watched:
                if self._cache is None or not self._cache.fits(sources, self.scaling):
                    self._cache = _Cache(sources, self.scaling)
                self._cache.sums[dtype] = total
        return total

    # ---- nn.Module -------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> LoRALinear:
        """Set the mode and drop the cached sum.

        Weight averaging hooks swap weights through ``.data`` just before they switch the mode.
        """
        self._cache = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> LoRALinear:
        self._cache = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool, *args: Any
    ) -> None:
        if self.merged and f'{prefix}weight' in state_dict:
            error_msgs = args[-1]
            error_msgs.append(
                f"the adapter at '{prefix[:-1]}' is merged into its weight: call unmerge() before "
                'loading, or the loaded weight could never be unmerged'
            )
            return
        self._cache = None
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state['_cache'] = None  # copies and pickles form their own
        return state

    def extra_repr(self) -> str:
        """Sizes, rank and alpha for ``print(model)``."""
        return f'{super().extra_repr()}, rank={self.rank}, alpha={self.alpha:g}'


@contextmanager
def disable_adapters(module: nn.Module) -> Iterator[None]:
    """Let all adapters inside ``module`` rest: inside the block each layer is its base layer.

    Blocks may nest; each restores what it found, also when an exception leaves it.

    Args:
        module: A model, or one ``LoRALinear``.

    Raises:
        RuntimeError: An adapter is merged, so that its base weight is not there to be used.
    """
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, LoRALinear)]
    merged = [name or '(the layer itself)' for name, layer in layers if layer.merged]
    if merged:
        raise RuntimeError(
            f'{len(merged)} adapter(s) are merged into their weights and cannot be switched off, '
            f"the first is '{merged[0]}': call unmerge() first"
        )
    before = [layer.enabled for _, layer in layers]
    try:
        for _, layer in layers:
            layer.enabled = False
        yield
    finally:
        for (_, layer), enabled in zip(layers, before, strict=True):
            layer._enabled = enabled
