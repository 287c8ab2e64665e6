"""What is to be reached, and whether it was."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmforget.benchmarks import ffn, run, steps, streams, validation
from mmforget.benchmarks.measurement import Measurement, Table


@dataclass(frozen=True)
class Target:
    """A bound on a variant's cost by another one's.

    Attributes:
        level: Where it is looked for.
        title: How the case's title ends.
        variant: Whose cost.
        by: By whose; ``None`` bounds the cost itself.
        at_most: The bound of the ratio, or of the cost in seconds or bytes.
        quantity: ``'seconds'``, ``'peak_memory'`` or the name of one of the variant's details.
    """

    level: str
    title: str
    variant: str
    by: str | None
    at_most: float
    quantity: str = 'seconds'


TARGETS = (
    *(
        Target('ffn', f'{tokens} tokens, 256 to 1024 to 256, float32', 'mmforget', by, bound)
        for tokens in ('8,400', '22,000')
        for by, bound in ((ffn.FROZEN, 1.15), ('loralib', 0.85), ('peft', 0.85))
    ),
    Target('r50', '640×640, float32', steps.TRUNK_CACHE, steps.R0, 0.85),
    Target('r50', '640×640, float32', steps.DECODER, steps.R0, 0.08),
    Target('r50', '640×640, float32', steps.ONE_GROUP, steps.R0, 0.03),
    Target('r50', '640×640, float32', steps.DECODER, steps.R0, 0.30, 'peak_memory'),
    Target('r50', '640×640, float32', steps.FIRST_GROUP, steps.R0, 0.03),
    Target('garments', '8 + 8 images of 160×160', steps.ONE_GROUP, steps.R0, 0.20),
    Target('garments', 'loaded in each step', steps.ONE_GROUP, steps.R0, 0.20),
    Target('run', '80 steps each', run.OURS, run.REFERENCE, 0.20),
    Target('run', '80 steps each', run.OURS, None, 120),
    Target('validation', 'Garments', validation.COLD, validation.PASSES, 0.55),
    Target('validation', 'Garments', validation.WARM, validation.PASSES, 0.10),
    Target('validation', 'Garments', validation.WARM_LOWER, validation.PASSES, 0.10),
    Target('streams', '860,001 boxes', streams.OURS, None, 10, streams.WORK),
)


def measured(target: Target, tables: Sequence[Table]) -> float | None:
    """What a target bounds; ``None`` when it was not measured."""
    for table in tables:
        if table.level == target.level and table.title.endswith(target.title):
            names = [name for name in (target.variant, target.by) if name is not None]
            values = [_quantity(table.row(name), target.quantity) for name in names]
            if None not in values and all(values):
                return values[0] / (values[1] if target.by is not None else 1)
    return None


def _quantity(row: Measurement | None, name: str) -> float | None:
    if row is None:
        return None
    value = row.details[name] if name in row.details else getattr(row, name, None)
    return value if isinstance(value, (int, float)) else None
