"""Backbone and neck of any detector, cut below the first module that is trained.

All that runs before it is a constant of the image. Which modules those are is seen by watching one
forward; which of their outputs what lies above needs is seen by asking for gradients. So nothing
has to be known about a backbone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmforget.adapters.injection import structure_version
from mmforget.taps.execution_order import (
    Span,
    execution_order,
    first_trained,
    is_trained,
    modules_before,
    still,
    tensors_before,
)
from mmforget.taps.recorded_modules import Calls, answering, recorded, tensor_leaves, with_tensors
from mmforget.taps.stages import Stage, StageMemory
from mmforget.taps.trunk_batch import TrunkBatch
from mmforget.taps.trunk_cache import Priority

FEATURES = 'features'
_BELOW = 'below '
# Of the image that shows in which order modules run, where the model does not ask for another.
_SIZE = (64, 64)


@dataclass
class _Cut:
    """Where backbone and neck are cut, as long as the same things are trained.

    Attributes:
        stage: Name of the stage below the cut.
        modules: Path -> module, those whose outputs are remembered.
        tensors: All that decides what they give.
        plans: For each shape of an image what of it has to be kept.
    """

    stage: str
    modules: dict[str, nn.Module]
    tensors: list[Tensor]
    plans: dict[tuple[int, int], '_Plan | None'] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """What of the recorded outputs is needed for images of one shape.

    Attributes:
        calls: What one image gave; tensors that are not needed are zeros.
        needed: Names of the tensors that are.
    """

    calls: Calls
    needed: tuple[str, ...]


class FeatureTrunk:
    """Gives a detector's features, the frozen part of backbone and neck from a cache.

    Args:
        detector: The detector.
        memory: Where stages are remembered.
    """

    def __init__(self, detector: nn.Module, memory: StageMemory) -> None:
        self.detector = detector
        self.memory = memory
        self._order: dict[str, Span] | None = None
        self._cut: _Cut | None = None
        self._cut_version = -1

    def parts(self) -> list[tuple[str, nn.Module]]:
        """Backbone and neck by their paths."""
        names = ('backbone', 'neck') if self.detector.with_neck else ('backbone',)
        return [(name, getattr(self.detector, name)) for name in names]

    def stages(self) -> dict[str, Stage]:
        """The part of backbone and neck below the cut, where they are trained; then all of them."""
        stages = {}
        cut = self._find_cut()
        if cut is not None:
            parameters = [t for t in cut.tensors if isinstance(t, nn.Parameter)]
            buffers = [t for t in cut.tensors if not isinstance(t, nn.Parameter)]
            stages[cut.stage] = Stage(
                list(cut.modules.values()), parameters, buffers, inside_next=True
            )
        stages[FEATURES] = Stage([part for _, part in self.parts()])
        return stages

    @staticmethod
    def is_partial(stage: str) -> bool:
        """Whether a stage ends within backbone or neck."""
        return stage.startswith(_BELOW)

    def whole(
        self, batch: TrunkBatch, indices: Sequence[int], priority: Priority | None
    ) -> list[dict[str, Tensor]]:
        """Feature maps (1, C, H, W) of some of the images, by level, all of it frozen."""

        def compute(of: list[int]) -> dict[str, Tensor]:
            inputs = torch.stack([batch.inputs[indices[place]] for place in of])
            return {str(level): maps for level, maps in enumerate(self._run(inputs))}

        images = [batch.images[index] for index in indices]
        return self.memory.entries(
            FEATURES, images, compute, priority, batch.together(indices), batch.size
        )

    def above_cut(self, batch: TrunkBatch) -> list[dict[str, Tensor]]:
        """The same of all images with gradients to what is trained, the rest from the cache."""
        entries: dict[int, dict[str, Tensor]] = {}
        for shape in dict.fromkeys(batch.shapes):
            indices = [i for i, own in enumerate(batch.shapes) if own == shape]
            levels = self._of_shape(batch, indices, shape)
            for place, index in enumerate(indices):
                own = slice(place, place + 1)
                entries[index] = {str(level): maps[own] for level, maps in enumerate(levels)}
        return [entries[index] for index in range(len(batch.images))]

    def remember(self, batch: TrunkBatch) -> None:
        """Fills the cache with what lies below the cut."""
        for shape in dict.fromkeys(batch.shapes):
            plan = self._plan(batch, shape)
            if plan is not None:
                indices = [i for i, own in enumerate(batch.shapes) if own == shape]
                self._constants(batch, indices, plan)

    def _of_shape(
        self, batch: TrunkBatch, indices: Sequence[int], shape: tuple[int, int]
    ) -> Sequence[Tensor]:
        """Features of images of one shape, by level."""
        inputs = torch.stack([batch.inputs[index] for index in indices])
        plan = self._plan(batch, shape)
        if plan is None:
            return self._run(inputs)
        entries = self._constants(batch, indices, plan)
        constants = {}
        for name, like in tensor_leaves(plan.calls).items():
            if name in plan.needed:
                of_images = torch.cat([entry[name].to(inputs.device) for entry in entries])
            else:
                of_images = like.new_zeros(len(indices), *like.shape)
            constants[name] = of_images.flatten(0, 1)
        with answering(self._cut.modules, with_tensors(plan.calls, constants)):
            return self._run(inputs)

    def _constants(
        self, batch: TrunkBatch, indices: Sequence[int], plan: _Plan
    ) -> list[dict[str, Tensor]]:
        """What is needed of the recorded outputs, for each image (1, n, ...)."""

        def compute(of: list[int]) -> dict[str, Tensor]:
            inputs = torch.stack([batch.inputs[indices[place]] for place in of])
            leaves = tensor_leaves(self._record(inputs))
            return {name: leaves[name].unflatten(0, (len(of), -1)) for name in plan.needed}

        images = [batch.images[index] for index in indices]
        return self.memory.entries(
            self._cut.stage, images, compute, batch.priority, batch.together(indices), batch.size
        )

    def _run(self, inputs: Tensor) -> Sequence[Tensor]:
        return type(self.detector).extract_feat(self.detector, inputs)

    @torch.no_grad()
    def _record(self, inputs: Tensor) -> Calls:
        with recorded(self._cut.modules) as calls:
            self._run(inputs)
        return calls

    def _find_cut(self) -> _Cut | None:
        """``None`` where all of backbone and neck is frozen, or nothing can be cut off."""
        if self._cut_version == structure_version():
            return self._cut
        self._cut, self._cut_version = None, structure_version()
        parts = self.parts()
        # A compiled part does not notice who watches its inner modules.
        compiled = any('forward' in vars(part) for _, part in parts)
        if compiled or not any(is_trained(part) for _, part in parts):
            return None
        if all(p.requires_grad for _, part in parts for p in part.parameters()):
            return None  # Nothing lies below; not worth watching a forward.
        first = first_trained(parts, self._execution_order())
        if first is None:
            return None
        name, moment = first
        modules = modules_before(parts, self._order, moment)
        if modules:
            tensors = tensors_before(parts, self._order, moment)
            self._cut = _Cut(f'{_BELOW}{name}', modules, tensors)
        return self._cut

    def _execution_order(self) -> dict[str, Span]:
        if self._order is None:
            like = next(self.detector.parameters())
            image = like.new_zeros(1, 3, *getattr(self.detector, 'input_size', _SIZE))
            self._order = execution_order(self.parts(), lambda: self._run(image))
        return self._order

    def _plan(self, batch: TrunkBatch, shape: tuple[int, int]) -> _Plan | None:
        """What has to be kept of images of a shape; ``None`` where they cannot be cut."""
        if self._find_cut() is None:
            return None
        plans = self._cut.plans
        if shape not in plans:
            place = next(i for i, own in enumerate(batch.shapes) if own == shape)
            image = batch.inputs[place][None]
            with torch.random.fork_rng(), still(self.detector):
                plan = self._make_plan(image)
                plans[shape] = plan if self._holds(plan, image) else None
            if plans[shape] is None:
                print_log(
                    f'What {type(self.detector).__name__} computes below '
                    f'{self._cut.stage.removeprefix(_BELOW)} cannot be told image by image, so '
                    'it is computed in every step.',
                    logger='current',
                    level=logging.WARNING,
                )
        return plans[shape]

    def _make_plan(self, image: Tensor) -> _Plan:
        """Finds out which of the outputs have a part in the features."""
        calls = self._record(image)
        leaves = tensor_leaves(calls)
        sources = {
            name: leaf.detach().clone().requires_grad_()
            for name, leaf in leaves.items()
            if leaf.is_floating_point()
        }
        # Not the leaves themselves: autograd forbids to change those in place.
        copies = {name: source.clone() for name, source in sources.items()}
        with torch.enable_grad():
            with answering(self._cut.modules, with_tensors(calls, copies)):
                features = self._run(image)
            total = sum(maps.sum() for maps in features if maps.requires_grad)
            found = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
        unused = {n for n, grad in zip(sources, found, strict=True) if grad is None}
        needed = tuple(name for name in leaves if name not in unused)
        zeros = {name: torch.zeros_like(leaves[name]) for name in unused}
        return _Plan(with_tensors(calls, zeros), needed)

    @torch.no_grad()
    def _holds(self, plan: _Plan, image: Tensor) -> bool:
        """Whether two images computed by the plan have the features that they have without it."""
        both = torch.cat([image, image.flip(-1)])
        single = [tensor_leaves(self._record(one[None])) for one in both]
        constants = {
            name: torch.cat([leaves[name] for leaves in single])
            if name in plan.needed
            else torch.cat([like, like])
            for name, like in tensor_leaves(plan.calls).items()
        }
        try:
            with answering(self._cut.modules, with_tensors(plan.calls, constants)):
                answered = self._run(both)
        except (RuntimeError, ValueError, IndexError):  # Shapes that do not go together.
            return False
        return all(_agree(a, b) for a, b in zip(answered, self._run(both), strict=True))


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    scale = float(theirs.abs().max())
    return ours.shape == theirs.shape and torch.allclose(
        ours, theirs, rtol=1e-3, atol=1e-4 * max(scale, 1e-6)
    )
