"""In which order a network's modules run, and which of them run before anything that is trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Span:
    """When a module's first call began and its last one ended, counted in calls and returns."""

    begin: int
    end: int


def execution_order(
    parts: Sequence[tuple[str, nn.Module]], run: Callable[[], Any]
) -> dict[str, Span]:
    """Runs something and notes when modules are called.

    Args:
        parts: Path and module of the parts that are watched, inner modules included.
        run: What calls them; it runs without gradients and in eval mode.

    Returns:
        Path -> when, for all modules that are called.
    """
    clock = 0
    begins: dict[str, int] = {}
    ends: dict[str, int] = {}

    def tick() -> int:
        nonlocal clock
        clock += 1
        return clock

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: begins.setdefault(name, tick()) and None

    def end(name: str) -> Callable[..., None]:
        return lambda *_: ends.update({name: tick()})

    with ExitStack() as stack:
        for path, part in parts:
            stack.enter_context(still(part))
            for name, module in part.named_modules(prefix=path):
                for handle in (
                    module.register_forward_pre_hook(begin(name)),
                    module.register_forward_hook(end(name)),
                ):
                    stack.callback(handle.remove)
        with torch.no_grad():
            run()
    return {name: Span(begins[name], ends[name]) for name in ends}


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """While open, a module and all in it are in eval mode."""
    modes = [(inner, inner.training) for inner in module.modules()]
    # Not by eval(): some backbones freeze parameters in it, adapters included.
    for inner, _ in modes:
        inner.training = False
    try:
        yield
    finally:
        for inner, training in modes:
            inner.training = training


def is_trained(module: nn.Module) -> bool:
    """Whether anything in a module moves."""
    return any(parameter.requires_grad for parameter in module.parameters())


def first_trained(
    parts: Sequence[tuple[str, nn.Module]], order: dict[str, Span]
) -> tuple[str, int] | None:
    """The first module to run that has trained parameters of its own, and when it begins.

    Parameters of a module that is never called (a projection that its owner applies) count as the
    nearest module's around it that is.

    Returns:
        ``None`` where nothing is trained.
    """
    found: tuple[str, int] | None = None
    for path, part in parts:
        for name, module in part.named_modules(prefix=path):
            if not any(p.requires_grad for p in module.parameters(recurse=False)):
                continue
            while name not in order and '.' in name:
                name = name.rpartition('.')[0]
            begin = order[name].begin if name in order else 0
            if found is None or begin < found[1]:
                found = name, begin
    return found


def modules_before(
    parts: Sequence[tuple[str, nn.Module]], order: dict[str, Span], moment: int
) -> dict[str, nn.Module]:
    """The largest modules without trained parameters whose last call ends before a moment.

    Returns:
        Path -> module, in the order in which they begin.
    """
    found: dict[str, nn.Module] = {}

    def visit(name: str, module: nn.Module) -> None:
        if name in order and order[name].end < moment and not is_trained(module):
            found[name] = module
            return
        for child_name, child in module.named_children():
            visit(f'{name}.{child_name}', child)

    for path, part in parts:
        visit(path, part)
    return dict(sorted(found.items(), key=lambda item: order[item[0]].begin))


def tensors_before(
    parts: Sequence[tuple[str, nn.Module]], order: dict[str, Span], moment: int
) -> list[torch.Tensor]:
    """Frozen parameters and buffers of all modules but those that begin at a moment or later."""
    found: dict[int, torch.Tensor] = {}

    def visit(name: str, module: nn.Module) -> None:
        if name in order and order[name].begin >= moment:
            return
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        found.update({id(tensor): tensor for tensor in own if not tensor.requires_grad})
        for child_name, child in module.named_children():
            visit(f'{name}.{child_name}', child)

    for path, part in parts:
        visit(path, part)
    return list(found.values())
