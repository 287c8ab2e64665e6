"""Where a detector may be cut, and what its frozen part gives: remembered image by image."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from mmforget.adapters.injection import structure_version
from mmforget.taps.fingerprints import Fingerprints
from mmforget.taps.trunk_cache import Priority, TrunkCache

# A single small image leaves half of a CPU's threads idle; more than 8 leave its caches.
_AT_ONCE = (8, 4)


@dataclass(frozen=True)
class Stage:
    """A part of a detector whose output may be remembered while nothing in it is trained.

    Attributes:
        modules: What the stage computes with, besides that of the stages before it.
        parameters: Parameters that belong to none of the modules.
        buffers: Buffers that belong to none of them.
        inside_next: All of it belongs to the next stage, too, whose weights stay the same whether
            or not there is a cut inside it.
    """

    modules: Sequence[nn.Module]
    parameters: Sequence[nn.Parameter] = ()
    buffers: Sequence[Tensor] = ()
    inside_next: bool = False

    def all_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the modules and those that belong to none."""
        return chain(self.parameters, *(module.parameters() for module in self.modules))

    def weights(self) -> Iterator[Tensor]:
        """All that decides what the stage gives for an image."""
        of_modules = (module.buffers() for module in self.modules)
        return chain(self.all_parameters(), self.buffers, *of_modules)


class StageTensors:
    """What the stages compute with, looked up again when adapters have come or gone.

    Walking through the modules takes milliseconds, in every step. Whoever replaces parameters in
    another way than by adapters needs a new instance, as every task and evaluation has.

    Args:
        stages: The detector's stages as they are now, from the image upwards.
    """

    def __init__(self, stages: Callable[[], Mapping[str, Stage]]) -> None:
        self._stages = stages
        self._version = -1
        self._parameters: dict[str, list[nn.Parameter]] = {}
        self._weights: dict[str, list[Tensor]] = {}

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        """Stage -> its parameters."""
        self._look()
        return self._parameters

    def weights_below(self, stage: str) -> list[Tensor]:
        """All that decides what a stage gives for an image, that of the stages below included."""
        self._look()
        return self._weights[stage]

    def _look(self) -> None:
        if self._version == structure_version():
            return
        below: dict[int, Tensor] = {}
        stages = self._stages()
        self._parameters = {name: list(part.all_parameters()) for name, part in stages.items()}
        self._weights = {}
        for name, part in stages.items():
            own = below | {id(tensor): tensor for tensor in part.weights()}
            self._weights[name] = list(own.values())
            if not part.inside_next:
                below = own
        self._version = structure_version()


class StageMemory:
    """Looks up what stages gave for the images of a batch, and computes what is not known.

    Args:
        cache: Where it is kept; ``None`` keeps nothing.
        stages: The detector's stages as they are now, from the image upwards.
        exact: Names of outputs that are never rounded, such as coordinates.
    """

    def __init__(
        self,
        cache: TrunkCache | None,
        stages: Callable[[], Mapping[str, Stage]],
        exact: Sequence[str] = (),
    ) -> None:
        self.cache = cache
        self._tensors = StageTensors(stages)
        self._exact = exact
        self._fingerprints = Fingerprints()

    def check(self, stage: str) -> None:
        """Lets the cache forget what other weights below the stage's output gave."""
        if self.cache is None:
            return
        weights = self._fingerprints.of(self._tensors.weights_below(stage), stage)
        self.cache.set_weights(_key(stage), weights)

    def look_anew(self) -> None:
        """Reads all weights again at the next check, for writes that left no trace."""
        self._fingerprints = Fingerprints()

    def has_changed(self, stage: str) -> bool:
        """Whether the weights below a stage's output were others before."""
        return self.cache.has_changed(_key(stage))

    def knows(self, stage: str, image: bytes) -> bool:
        """Whether something is kept of what a stage gave; weights are not looked at."""
        return self.cache is not None and self.cache.knows(_key(stage), image)

    def unknown(self, stage: str, images: Iterable[bytes]) -> list[bytes]:
        """The images for which nothing is kept of what a stage gave, or nothing that holds."""
        if self.cache is None:
            return list(images)
        self.check(stage)
        return [image for image in images if not self.cache.knows(_key(stage), image)]

    def entries(
        self,
        stage: str,
        images: Sequence[bytes],
        compute: Callable[[list[int]], Mapping[str, Tensor]],
        priority: Priority | None,
        together: Sequence[Hashable] = (),
        size: int = 1,
    ) -> list[dict[str, Tensor]]:
        """A stage's outputs for each image of a batch, equal images computed once.

        Always one image alone or always the same number together, filled up with the last one,
        because float results depend on the batch's size: what an image gives must not depend on
        how many others are not known yet, or a resumed run would differ. ``size`` belongs into what
        images are known by.

        Args:
            stage: Name of the stage.
            images: Digests of the images.
            compute: Gives the outputs, each (N, ...), for N indices of the batch.
            priority: How dear they are to the cache; ``None`` does not keep what is computed.
            together: For each image what those have in common that may be computed together;
                ``None`` is computed alone. By default each is.
            size: How many are computed together.

        Returns:
            For each image its outputs by name, each (1, ...).
        """
        self.check(stage)
        key = _key(stage)
        cache = self.cache
        found = {i: None if cache is None else cache.get(key, i) for i in images}
        missing = [images.index(image) for image, known in found.items() if known is None]
        for indices in _batches(missing, together, size):
            with torch.no_grad():
                computed = compute(indices)
            for place, index in enumerate(dict.fromkeys(indices)):
                image = images[index]
                # Cloned: a slice would keep the whole batch alive beyond the cache's bound.
                own = {
                    name: value[place : place + 1].clone(memory_format=torch.contiguous_format)
                    for name, value in computed.items()
                }
                found[image] = own if cache is None else cache.rounded(own, self._exact)
                if cache is not None and priority is not None:
                    cache.put(key, image, found[image], priority)
        return [found[i] if cache is None else cache.restored(found[i]) for i in images]


def at_once(images: int) -> int:
    """How many small images are computed together where a batch has so many."""
    return next((size for size in _AT_ONCE if images >= size), 1)


def _batches(
    indices: Sequence[int], together: Sequence[Hashable], size: int
) -> Iterator[list[int]]:
    """Indices that are computed at once: alone, or ``size`` that have something in common."""
    groups: dict[Hashable, list[int]] = {}
    for index in indices:
        common = together[index] if together else None
        if common is None:
            yield [index]
        else:
            groups.setdefault(common, []).append(index)
    for group in groups.values():
        for start in range(0, len(group), size):
            part = group[start : start + size]
            yield part + part[-1:] * (size - len(part))


def _key(stage: str) -> str:
    """A stage under autocast is another one: it gives other numbers."""
    precisions = (
        f' {device} {torch.get_autocast_dtype(device)}'
        for device in ('cpu', 'cuda')
        if torch.is_autocast_enabled(device)
    )
    return stage + ''.join(precisions)
