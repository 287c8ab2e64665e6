"""With which settings a detector forgets, by its family: those of configs/_base_/forgetting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from mmforget.taps import find_tap


@dataclass(frozen=True)
class Trial:
    """How each group is tried before a task; arguments of ``GroupTrial``."""

    strength: float = 0.7
    steps: int = 8
    held_out: int = 2
    patience: int = 2


@dataclass(frozen=True)
class Recipe:
    """What of GS-LoRA's settings depends on the family.

    Attributes:
        steps: Optimiser steps a task, for those who ask for none.
        forget_weight: β of GS-LoRA's objective.
        bound_each: Whether the bound holds for each matched prediction.
        forget_images: Images of the forget stream, at most.
        retain_images: Images of the retain stream, for those who ask for no number.
        variants: Of each retain image, made by the flips that the detector was trained with; with
            one, images stay as they are.
        recurring: Whether the retain images come again in the next task, as in a replay buffer.
        trial: How groups are tried.
    """

    steps: int
    forget_weight: float
    bound_each: bool
    forget_images: int
    retain_images: int
    variants: int = 1
    recurring: bool = True
    trial: Trial = field(default_factory=Trial)


#: Objects have one query each: few predictions have to change.
SET_PREDICTION = Recipe(
    steps=80, forget_weight=0.3, bound_each=False, forget_images=64, retain_images=400
)
#: Every object has many places or proposals, alike and not: a weaker push for longer; more images
#: of both streams, for a box head learns few by heart; longer trials, for eight steps show too
#: little; a group beside the best must gain nearly as much, for the neck's costs retained classes.
MANY_TO_ONE = Recipe(
    steps=400,
    forget_weight=0.1,
    bound_each=True,
    forget_images=1000,
    retain_images=2000,
    variants=2,
    recurring=False,
    trial=Trial(strength=0.95, steps=24, held_out=4),
)


def recipe_for(model: Mapping[str, Any]) -> Recipe:
    """The recipe of a detector's family.

    Args:
        model: The detector's config. One that mmforget cannot read is refused elsewhere.
    """
    register_all_modules(init_default_scope=False)
    kind = model.get('type')
    detector = kind if isinstance(kind, type) else MODELS.get(str(kind))
    tap = find_tap(detector) if isinstance(detector, type) else None
    return SET_PREDICTION if tap is None or tap.one_to_one else MANY_TO_ONE
