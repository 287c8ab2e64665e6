"""Where a detector may be cut, and what its frozen part gives: remembered image by image."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from mmforget.taps.fingerprints import Fingerprints
from mmforget.taps.trunk_cache import Priority, TrunkCache


@dataclass(frozen=True)
class Stage:
    """A part of a detector whose output may be remembered while nothing in it is trained.

    Attributes:
        modules: What the stage computes with, besides that of the stages before it.
        parameters: Parameters that belong to none of the modules.
    """

    modules: Sequence[nn.Module]
    parameters: Sequence[nn.Parameter] = ()

    def all_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the modules and those that belong to none."""
        return chain(self.parameters, *(module.parameters() for module in self.modules))

    def weights(self) -> Iterator[Tensor]:
        """All that decides what the stage gives for an image."""
        return chain(self.all_parameters(), *(module.buffers() for module in self.modules))


class StageMemory:
    """Looks up what stages gave for the images of a batch, and computes what is not known.

    Args:
        cache: Where it is kept.
        stages: The detector's stages as they are now, from the image upwards.
        exact: Names of outputs that are never rounded, such as coordinates.
    """

    def __init__(
        self,
        cache: TrunkCache,
        stages: Callable[[], Mapping[str, Stage]],
        exact: Sequence[str] = (),
    ) -> None:
        self.cache = cache
        self._stages = stages
        self._exact = exact
        self._fingerprints = Fingerprints()

    def check(self, stage: str) -> None:
        """Lets the cache forget what other weights below the stage's output gave."""
        tensors: dict[int, Tensor] = {}
        for name, part in self._stages().items():
            tensors |= {id(tensor): tensor for tensor in part.weights()}
            if name == stage:
                break
        self.cache.set_weights(_key(stage), self._fingerprints.of(tensors.values()))

    def has_changed(self, stage: str) -> bool:
        """Whether the weights below a stage's output were others before."""
        return self.cache.has_changed(_key(stage))

    def unknown(self, stage: str, images: Iterable[bytes]) -> list[bytes]:
        """The images for which nothing is kept of what a stage gave, or nothing that holds."""
        self.check(stage)
        return [image for image in images if not self.cache.knows(_key(stage), image)]

    def entries(
        self,
        stage: str,
        images: Sequence[bytes],
        compute: Callable[[list[int]], Mapping[str, Tensor]],
        priority: Priority | None,
        at_once: int = 1,
    ) -> list[dict[str, Tensor]]:
        """A stage's outputs for each image of a batch, equal images computed once.

        Always ``at_once`` images together, filled up with the last one, because float results
        depend on the batch's size: what an image gives must not depend on how many others were
        asked for with it, or a resumed run would differ.

        Args:
            stage: Name of the stage.
            images: Digests of the images.
            compute: Gives the outputs, each (N, ...), for N indices of the batch.
            priority: How dear they are to the cache; ``None`` does not keep what is computed.
            at_once: Images that are computed together.

        Returns:
            For each image its outputs by name, each (1, ...).
        """
        self.check(stage)
        key = _key(stage)
        found = {image: self.cache.get(key, image) for image in images}
        missing = [image for image, known in found.items() if known is None]
        for start in range(0, len(missing), at_once):
            together = missing[start : start + at_once]
            together += together[-1:] * (at_once - len(together))
            with torch.no_grad():
                computed = compute([images.index(image) for image in together])
            for place, image in enumerate(dict.fromkeys(together)):
                # Cloned: a slice would keep the whole batch alive beyond the cache's bound.
                own = {
                    name: value[place : place + 1].clone(memory_format=torch.contiguous_format)
                    for name, value in computed.items()
                }
                found[image] = self.cache.rounded(own, self._exact)
                if priority is not None:
                    self.cache.put(key, image, found[image], priority)
        return [self.cache.restored(found[image]) for image in images]


def as_batch(entries: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Outputs of single images as a batch.

    A name that some images lack is filled up with zeros: a mask where nothing is masked.

    Args:
        entries: For each image its outputs, each (1, ...).
        device: Where the batch is wanted.

    Returns:
        The outputs by name, each (B, ...).
    """
    batch = {}
    for name in dict.fromkeys(name for entry in entries for name in entry):
        given = next(entry[name] for entry in entries if name in entry)
        parts = [entry[name] if name in entry else torch.zeros_like(given) for entry in entries]
        batch[name] = torch.cat([part.to(device) for part in parts])
    return batch


def _key(stage: str) -> str:
    """A stage under autocast is another one: it gives other numbers."""
    precisions = (
        f' {device} {torch.get_autocast_dtype(device)}'
        for device in ('cpu', 'cuda')
        if torch.is_autocast_enabled(device)
    )
    return stage + ''.join(precisions)
