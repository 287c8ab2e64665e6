"""What modules give in one forward, written down, and given again in their place."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mmforget.taps.replaced import replaced

#: (path, number of the call) -> what the call gave, as leaves and the tree that they hang on.
Calls = dict[tuple[str, int], tuple[list[Any], TreeSpec]]


@contextmanager
def recorded(modules: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """While open, writes down what the modules give; what is yielded fills up meanwhile."""
    calls: Calls = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            number = sum(path == name for path, _ in calls)
            leaves, tree = tree_flatten(output)
            # What comes next may change them in place.
            copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            calls[name, number] = copies, tree

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(record(name)).remove)
        yield calls


@contextmanager
def answering(modules: Mapping[str, nn.Module], calls: Calls) -> Iterator[None]:
    """While open, the modules give what was written down, whatever they are called with."""
    with ExitStack() as stack:
        for name, module in modules.items():
            outputs = iter(
                [tree_unflatten(*calls[key]) for key in sorted(k for k in calls if k[0] == name)]
            )
            stack.enter_context(replaced(module, 'forward', _in_turn(outputs)))
        yield


def _in_turn(outputs: Iterator[Any]) -> Callable[..., Any]:
    return lambda *_, **__: next(outputs)


def tensor_leaves(calls: Calls) -> dict[str, Tensor]:
    """All tensors that were given, by names that tell the call and the place in its output."""
    return {
        f'{path}#{number}.{place}': leaf
        for (path, number), (leaves, _) in calls.items()
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor)
    }


def with_tensors(calls: Calls, tensors: Mapping[str, Tensor]) -> Calls:
    """The same calls with other tensors, by the names of :func:`tensor_leaves`."""
    return {
        (path, number): (
            [tensors.get(f'{path}#{number}.{place}', leaf) for place, leaf in enumerate(leaves)],
            spec,
        )
        for (path, number), (leaves, spec) in calls.items()
    }
