"""Levels ``garments`` and ``r50``: one optimiser step, mmforget's savings in stages."""

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import nn

from mmforget.benchmarks import coco_r50, garments
from mmforget.benchmarks.adapter_libraries import (
    RANK,
    Library,
    adapt,
    with_loralib,
    with_mmforget,
    with_peft,
)
from mmforget.benchmarks.measurement import Action, Case, Settings
from mmforget.benchmarks.our_step import OurStep
from mmforget.benchmarks.recipe_step import Batch, Recipe, RecipeStep, penalty_by_name
from mmforget.datasets.item_memory import ItemMemory
from mmforget.taps import TrunkCache

R0 = 'R0 recipe, loralib'
R1 = 'R1 recipe, peft'
R2 = 'R2 full fine-tuning'
LAYER = 'A.1 our layer'
ONE_FORWARD = 'A.2 + one forward'
TRUNK_CACHE = 'A.3 + trunk cache'
DECODER = 'A.4 + decoder groups alone'
ONE_GROUP = 'A.4 + last decoder group alone'
FIRST_GROUP = 'A.4 + first decoder group alone'
# They compute the same losses from the same start.
ALIKE = (R0, R1, LAYER, ONE_FORWARD, TRUNK_CACHE)
_CACHE_BYTES = 4 << 30

NOTE = (
    'Every step has the same images and starts with the same weights; loading images is not '
    'part of it. The cache is warm: each image was seen before.'
)


class StepVariants:
    """The variants of one step, each on a detector of its own.

    Args:
        detector: Gives a fresh detector.
        batches: Gives the batches.
        decoder: Names of the decoder's groups.
        chosen: The one that lives alone.
        recipe: The numbers.
        rank: Of every adapter.
        dtype: Below float32 the forward runs under autocast.
    """

    def __init__(
        self,
        detector: Callable[[], nn.Module],
        batches: Callable[[], Sequence[Batch]],
        decoder: Sequence[str],
        chosen: str,
        recipe: Recipe | None = None,
        rank: int = RANK,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.detector = detector
        self.batches = batches
        self.decoder = decoder
        self.chosen = chosen
        self.recipe = recipe or Recipe()
        self.rank = rank
        self.dtype = dtype

    def all(self) -> dict[str, Callable[[], Action]]:
        """Name -> how to build it."""
        return {
            R0: partial(self.reference, with_loralib),
            R1: partial(self.reference, with_peft),
            R2: self.full,
            LAYER: partial(self.reference, with_mmforget),
            ONE_FORWARD: self.ours,
            TRUNK_CACHE: partial(self.ours, cached=True),
            DECODER: partial(self.ours, self.decoder, cached=True),
            FIRST_GROUP: partial(self.ours, [self.decoder[0]], cached=True),
            ONE_GROUP: partial(self.ours, [self.chosen], cached=True),
        }

    def reference(self, library: Library) -> RecipeStep:
        """The recipe with a library's layers."""
        detector = self.detector()
        adapt(detector, 'ffn', library, self.rank)
        return RecipeStep(detector, self.batches(), self.recipe, self.dtype, penalty_by_name)

    def full(self) -> RecipeStep:
        """The recipe's losses, moving whatever MMDetection's config lets move."""
        return RecipeStep(self.detector(), self.batches(), self.recipe, self.dtype)

    def ours(self, alive: Sequence[str] | None = None, cached: bool = False) -> OurStep:
        """The step of mmforget."""
        memory = TrunkCache(_CACHE_BYTES) if cached else None
        return OurStep(
            self.detector(), self.batches(), self.recipe, self.rank, alive, memory, self.dtype
        )


def garments_variants(
    settings: Settings, rank: int = RANK, recipe: Recipe | None = None, batches: int = 2
) -> StepVariants:
    """Steps on the Garments demo's detector and images.

    Args:
        settings: Of the benchmark.
        rank: Of every adapter.
        recipe: The numbers.
        batches: How many batches the steps take in turn.
    """

    @cache
    def config():
        return garments.demo_config(settings)

    @cache
    def images() -> list[Batch]:
        training = garments.TrainingImages(config())
        found = list(training.batches(training.scenario.tasks[0], batches))
        return [_first_images(batch, 2) for batch in found] if settings.quick else found

    return StepVariants(
        lambda: garments.build_detector(config(), settings.device),
        images,
        garments.DECODER_GROUPS,
        garments.CHOSEN_GROUP,
        recipe,
        rank,
    )


def garments_cases(settings: Settings) -> list[Case]:
    """One step of the Garments demo: 8 + 8 images of 160×160."""
    title = (
        'one step of Deformable DETR MobileNetV2, '
        + ('2 + 2' if settings.quick else '8 + 8')
        + ' images of 160×160'
    )
    variants = garments_variants(settings)
    return [
        Case(
            level='garments',
            title=title,
            reference=R0,
            variants=variants.all(),
            counted=True,
            note=NOTE,
        ),
        Case(
            level='garments',
            title=f'{title}, loaded in each step',
            reference=R0,
            variants=loading(variants, settings),
            note='As above, with the images read from their files in each step. mmforget keeps '
            'loaded images, too, and has seen each of them before.',
        ),
    ]


def loading(variants: StepVariants, settings: Settings) -> dict[str, Callable[[], Action]]:
    """R0 and the default of ours, with batches that are loaded in each step."""

    def with_batches(memory: ItemMemory | None) -> StepVariants:
        changed = copy.copy(variants)
        images = 2 if settings.quick else None
        changed.batches = partial(
            garments.LoadedBatches, garments.demo_config(settings), memory, images
        )
        return changed

    return {
        R0: lambda: with_batches(None).reference(with_loralib),
        ONE_GROUP: lambda: with_batches(ItemMemory(_CACHE_BYTES)).ours(
            [variants.chosen], cached=True
        ),
    }


def r50_cases(settings: Settings) -> list[Case]:
    """One step of Deformable DETR R50, one image of each stream."""
    sizes = [(640, 640, 'float32')]
    if settings.device == 'cuda':
        # mmcv's deformable attention lacks bfloat16; the table says so.
        sizes += [(800, 1333, dtype) for dtype in ('float32', 'float16', 'bfloat16')]
    if settings.quick:
        sizes = [(64, 64, 'float32')]
    cases = []
    for height, width, dtype in sizes:
        variants = StepVariants(
            _copies_of(partial(coco_r50.build_detector, settings.device, settings.seed)),
            partial(_one_batch, height, width, settings.seed),
            coco_r50.DECODER_GROUPS,
            coco_r50.CHOSEN_GROUP,
            dtype=getattr(torch, dtype),
        )
        cases.append(
            Case(
                level='r50',
                title=f'one step of Deformable DETR R50, 80 classes, 1 + 1 images of '
                f'{height}×{width}, {dtype}',
                reference=R0,
                variants=variants.all(),
                counted=True,
                dtype=dtype,
                note=f'{NOTE} Dropout is as in the config, so first losses differ by chance.',
            )
        )
    return cases


def without_dropout(variants: StepVariants) -> StepVariants:
    """The same variants on detectors whose dropout rests, so that losses can be compared."""

    def detector(build: Callable[[], nn.Module] = variants.detector) -> nn.Module:
        model = build()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        return model

    changed = copy.copy(variants)
    changed.detector = detector
    return changed


def _copies_of(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    original = cache(build)
    return lambda: copy.deepcopy(original())


def _one_batch(height: int, width: int, seed: int) -> list[Batch]:
    return [coco_r50.random_batch(height, width, seed=seed)]


def _first_images(batch: Batch, number: int) -> Batch:
    return {
        stream: {key: values[:number] for key, values in data.items()}
        for stream, data in batch.items()
    }
