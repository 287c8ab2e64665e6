"""What all layers with a low-rank update have in common: the update, its merge, the cached sum.

A layer's weight, read as a matrix ``W`` (out, in), may move by ``s B A`` with ``A`` (rank, in),
``B`` (out, rank) and ``s = alpha / rank`` (LoRA, arXiv 2106.09685, eq. 3). For a convolution ``in``
counts every input channel at every place of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook


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


def matrix_sides(layer: nn.Module) -> tuple[int, int]:
    """Rows and columns of a layer's weight, read as a matrix (out, in)."""
    return layer.weight.shape[0], layer.weight[0].numel()


# mmcv's wrappers do the same as torch's layers, and handle empty batches.
_PLAIN_WRAPPERS = 'mmcv.cnn.bricks.wrappers'


def applies_its_weight(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer does with its weight what torch's own layer of its kind does.

    A subclass may standardise or normalise the weight first, or pad the input in its own way.
    """
    return (
        isinstance(layer, LowRankLayer)
        or type(layer).forward is kind.forward
        or type(layer).__module__ == _PLAIN_WRAPPERS
    )


def updated_weight(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: float) -> Tensor:
    """Form ``W + s B A`` as a new tensor.

    Forward, merge and fold all come through here, so that they add the same bits.

    Args:
        weight: ``W``, (out, in), or a convolution's (out, channels, height, width).
        lora_A: ``A``, (rank, in).
        lora_B: ``B``, (out, rank).
        scaling: ``s``.

    Returns:
        In the shape and dtype and on the device of ``weight``; the sum is taken in the wider of the
        dtypes.
    """
    dtype = torch.promote_types(weight.dtype, torch.promote_types(lora_A.dtype, lora_B.dtype))
    # Matrix products of the adapters must not be lowered by a surrounding autocast: they define the
    # weight.
    with no_autocast(weight.device.type):
        total = torch.addmm(
            weight.to(dtype).flatten(1),
            lora_B.to(weight.device, dtype),
            lora_A.to(weight.device, dtype),
            alpha=scaling,
        )
    return total.view(weight.shape).to(weight.dtype)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype of an active autocast on this device, or None."""
    # A compiler cannot trace the first question; the devices it knows have an autocast.
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)
    if known and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


@contextmanager
def no_autocast(device_type: str) -> Iterator[None]:
    """While open, no autocast of this device type lowers anything."""
    if autocast_dtype(device_type) is None:
        yield
    else:
        with torch.autocast(device_type, enabled=False):
            yield


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


class LowRankLayer(nn.Module):
    """A layer with a frozen weight and a low-rank update; subclasses say how it is applied.

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

    Under ``torch.compile`` the sum is a part of the graph and formed in every call.

    Args:
        layer: The layer to replace.
        rank: Rank of the update, 1 to the smaller side of the weight.
        alpha: Numerator of the scaling ``alpha / rank``; positive.
        generator: Source of the draw of ``lora_A``. The draw is made on the generator's device (CPU
            when None) in float32 and then moved, so that it is the same on all devices.

    Attributes:
        columns: The weight's ``in``.
        rows: The weight's ``out``.

    Raises:
        ValueError: ``rank`` or ``alpha`` is out of range.
    """

    def __init__(
        self,
        layer: nn.Module,
        rank: int,
        alpha: float,
        generator: torch.Generator | None = None,
    ) -> None:
        nn.Module.__init__(self)  # the layer's own would allocate and fill a weight
        self.rows, self.columns = matrix_sides(layer)
        check_rank(rank, self.columns, self.rows)
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f'alpha={alpha!r}: expected a positive number, e.g. 1.0')
        self.rank = rank
        self.alpha = float(alpha)
        self.scaling = float(alpha) / rank
        self.weight = layer.weight
        self.register_parameter('bias', layer.bias)
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        like = dict(dtype=self.weight.dtype, device=self.weight.device)
        self.lora_A = nn.Parameter(torch.zeros(rank, self.columns, **like))
        self.lora_B = nn.Parameter(torch.zeros(self.rows, rank, **like))
        self._holder = (layer,)  # a tuple hides it from nn.Module, which would register it
        self._enabled = True
        self._before_merge: Tensor | None = None
        self._cache: _Cache | None = None
        self.training = layer.training
        self.reset(generator)

    # ---- state -----------------------------------------------------------------------------------

    @property
    def original(self) -> nn.Module:
        """The replaced layer, holding this layer's present weight, bias and mode."""
        layer = self._holder[0]
        # load_state_dict(assign=True) and device moves may have swapped the Parameter objects here.
        layer.weight = self.weight
        layer.bias = self.bias
        layer.training = self.training
        return layer

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
        """The update ``s B A`` in the shape of the weight, with gradient to both factors."""
        return (self.scaling * (self.lora_B @ self.lora_A)).view(self.weight.shape)

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

    def _needs_grad(self, x: Tensor) -> bool:
        """Whether a call gives gradients.

        Raises:
            RuntimeError: The base weight or bias has been set to require one, which this layer
                never gives.
        """
        if not torch.is_grad_enabled():
            return False
        if self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad):
            raise RuntimeError(
                f'the base weight or bias of a {type(self).__name__} requires a gradient, but this '
                'layer trains only lora_A and lora_B: set requires_grad=False on weight and bias, '
                'or remove the adapter to train the weight'
            )
        return x.requires_grad or self.lora_A.requires_grad or self.lora_B.requires_grad

    def _in_compute_dtype(self, x: Tensor) -> tuple[Tensor, Tensor | None, torch.dtype]:
        """Input, bias and dtype of the weight as a surrounding autocast wants them."""
        dtype = self.weight.dtype
        lowered = autocast_dtype(x.device.type)
        # As autocast does for the plain layer itself: float64 stays as it is.
        if lowered is None or torch.float64 in (x.dtype, dtype):
            return x, self.bias, dtype
        return x.to(lowered), None if self.bias is None else self.bias.to(lowered), lowered

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

    def train(self, mode: bool = True) -> LowRankLayer:
        """Set the mode and drop the cached sum.

        Weight averaging hooks swap weights through ``.data`` just before they switch the mode.
        """
        self._cache = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> LowRankLayer:
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
        module: A model, or one low-rank layer.

    Raises:
        RuntimeError: An adapter is merged, so that its base weight is not there to be used.
    """
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, LowRankLayer)]
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
