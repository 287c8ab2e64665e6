"""The scores of forgetting: plain arithmetic on per-class AP (spec A.2).

AP is COCO AP in 0..1. A class without ground truth has AP ``None``; it takes part in no mean, and
a mean over no class is ``None`` itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmforget.structures import ForgettingTask, ProtocolResult

ClassAP = Mapping[str, float | None]


@dataclass
class ForgettingScores:
    """What one evaluation after a task yields.

    Attributes:
        task: Name of the task, ``task_1`` for the first.
        full: Scores where every class is evaluated on all images.
        restricted: Scores where a set is evaluated on the images that show it (spec A.5);
            ``None`` if not asked for.
        per_class: For each class AP of the loaded detector (``None`` if unknown) and AP now,
            both on all images.
        per_class_AP50: The same at IoU 0.5.
        segm: The same scores of masks; ``None`` if not asked for.
    """

    task: str
    full: ProtocolResult
    restricted: ProtocolResult | None
    per_class: dict[str, list[float | None]]
    per_class_AP50: dict[str, list[float | None]]
    segm: 'ForgettingScores | None' = None


def mean_ap(class_ap: ClassAP, classes: Iterable[str]) -> float | None:
    """AP(S): the mean over the classes of S that have ground truth.

    Args:
        class_ap: AP by class name.
        classes: The set S.

    Raises:
        KeyError: A class of S is not in ``class_ap``.
    """
    known = [ap for ap in (class_ap[name] for name in classes) if ap is not None]
    return sum(known) / len(known) if known else None


def drop(before: float | None, after: float | None) -> float | None:
    """Drop = AP_f of the loaded detector - AP_f now; negative if the class got better."""
    return None if before is None or after is None else before - after


def harmonic_mean(ap_r: float | None, ap_drop: float | None) -> float | None:
    """H = 2 * AP_r * Drop / (AP_r + Drop); 0 as soon as one of them is not positive."""
    if ap_r is None or ap_drop is None:
        return None
    if ap_r <= 0 or ap_drop <= 0:
        return 0.0
    return 2 * ap_r * ap_drop / (ap_r + ap_drop)


def relative(after: float | None, before: float | None) -> float | None:
    """AP_r as a share of the loaded detector's AP_r on the same classes; ``None`` if that is 0."""
    return None if after is None or not before else after / before


def class_sets(task: ForgettingTask) -> dict[str, tuple[str, ...]]:
    """Disjoint sets by letter: ``f`` the forget set, ``r`` the retain set, ``o`` the old one."""
    return {'f': task.classes, 'r': task.retained, 'o': task.forgotten}


def scored_sets(task: ForgettingTask) -> dict[str, tuple[str, ...]]:
    """These, and ``m``: the part of the retain set that has no training data."""
    return {**class_sets(task), 'm': task.missing}


def set_means(
    task: ForgettingTask, class_ap: ClassAP, class_ap50: ClassAP
) -> dict[str, float | None]:
    """AP_f, AP_r, AP_o, AP_m and their AP50 out of one per-class AP."""
    sets = scored_sets(task)
    means = {f'AP_{letter}': mean_ap(class_ap, names) for letter, names in sets.items()}
    means |= {f'AP50_{letter}': mean_ap(class_ap50, names) for letter, names in sets.items()}
    return means


def protocol_result(
    now: Mapping[str, float | None], base: Mapping[str, float | None] | None
) -> ProtocolResult:
    """The scores of one task under one protocol (spec A.2).

    Args:
        now: The means of :func:`set_means`, measured after the task.
        base: The loaded detector's means on the same sets and under the same protocol, or
            ``None``: then everything that needs a reference is ``None``.
    """
    base = base or {}
    fields: dict[str, float | None] = {}
    for ap, head in (('AP', ''), ('AP50', 'AP50_')):
        base_f, base_r = base.get(f'{ap}_f'), base.get(f'{ap}_r')
        ap_f, ap_r = now[f'{ap}_f'], now[f'{ap}_r']
        ap_drop = drop(base_f, ap_f)
        fields |= {
            f'{ap}_f': ap_f,
            f'{ap}_r': ap_r,
            f'{ap}_o': now[f'{ap}_o'],
            f'{head}drop': ap_drop,
            f'{head}H': harmonic_mean(ap_r, ap_drop),
            # AP_f = 0 and AP_r unchanged: Drop is then the whole of the base AP_f.
            f'{head}H_ceiling': harmonic_mean(base_r, base_f),
            f'{ap}_r_relative': relative(ap_r, base_r),
            f'{ap}_m': now.get(f'{ap}_m'),
            f'{ap}_m_relative': relative(now.get(f'{ap}_m'), base.get(f'{ap}_m')),
        }
    return ProtocolResult(**fields)
