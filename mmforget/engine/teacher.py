"""The detector that methods distil from: the loaded one, an earlier or an untrained one."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mmforget.structures import StreamOutput
from mmforget.taps import Stream, StreamOptions, Tap, TrunkCache, build_tap


class Teacher:
    """A detector that shares every weight with the student which no task moves.

    Its modules are copies, its tensors are the student's own until ``keep`` names them. So a
    teacher of adapters costs a copy of the adapted weights alone. (The authors copy theirs before
    the checkpoint is loaded and never load it, spec E.1.)

    Args:
        detector: The plain detector, before injection; its weights may be loaded later, in place.
        cache: For what the teacher gives for an image; the student's holds what other weights give.
    """

    def __init__(self, detector: nn.Module, cache: TrunkCache | None = None) -> None:
        shared = {id(t): t for t in chain(detector.parameters(), detector.buffers())}
        self.detector = copy.deepcopy(detector, shared).eval()
        self.cache = cache
        self._student = detector
        self._own: set[str] = set()
        self._tap: Any = None

    @torch.no_grad()
    def keep(self, names: Iterable[str], anew: bool = False) -> None:
        """Copies weights that are about to move.

        Args:
            names: Paths of parameters of the plain detector.
            anew: Also those that were copied before: the teacher is the student as it is now.
        """
        of_student = dict(self._student.named_parameters())
        for name in names:
            if anew or name not in self._own:
                self._set(name, of_student[name].detach().clone())
        self._tap = None

    @torch.no_grad()
    def replace(self, weights: Mapping[str, Tensor]) -> None:
        """Takes all weights and statistics from elsewhere; nothing is shared any more."""
        for name, tensor in chain(self._student.named_parameters(), self._student.named_buffers()):
            if name in weights:  # Some buffers are constants and in no checkpoint.
                self._set(name, weights[name].to(tensor.device, copy=True))
        self._tap = None

    def _set(self, name: str, value: Tensor) -> None:
        owner, _, last = name.rpartition('.')
        module = self.detector.get_submodule(owner)
        if last in module._buffers:
            module._buffers[last] = value
        else:
            setattr(module, last, nn.Parameter(value, requires_grad=False))
        self._own.add(name)

    @torch.no_grad()
    def outputs(
        self,
        inputs: Tensor,
        samples: Sequence[Any],
        streams: Mapping[str, Stream],
        student: Tap | None = None,
    ) -> dict[str, StreamOutput]:
        """What the teacher gives for a preprocessed batch; no losses.

        Args:
            inputs: Images of all streams, (B, 3, H, W).
            samples: One for each image.
            streams: Those that are wanted, next to each other; the rest is not computed.
            student: Its tap, whose padding the teacher follows.
        """
        if self._tap is None:
            self._tap = build_tap(self.detector, self.cache)
        self._tap.leader = student
        start = min(stream.images.start for stream in streams.values())
        stop = max(stream.images.stop for stream in streams.values())
        wanted = {}
        for name, stream in streams.items():
            place = slice(stream.images.start - start, stream.images.stop - start)
            options = StreamOptions(losses=False, halfway=stream.options.halfway)
            wanted[name] = Stream(place, options)
        return self._tap.forward(inputs[start:stop], samples[start:stop], wanted)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that are no longer the student's."""
        tensors = dict(chain(self.detector.named_parameters(), self.detector.named_buffers()))
        return {name: tensors[name].detach() for name in sorted(self._own)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores ``state_dict``."""
        for name, value in state.items():
            self._set(name, value.clone())
        self._tap = None
