"""What is to be reached, and whether it was."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmforget.benchmarks import ffn, run, steps, validation
from mmforget.benchmarks.measurement import Table


@dataclass(frozen=True)
class Target:
    """A bound on a variant's cost by another one's.

    Attributes:
        level: Where it is looked for.
        title: A part of the case's title.
        variant: Whose cost.
        by: By whose.
        at_most: The bound of the ratio.
        quantity: ``'seconds'`` or ``'peak_memory'``.
    """

    level: str
    title: str
    variant: str
    by: str
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
    Target('garments', '8 + 8 images', steps.ONE_GROUP, steps.R0, 0.20),
    Target('run', '80 steps', run.OURS, run.REFERENCE, 0.20),
    Target('validation', '', validation.COLD, validation.PASSES, 0.55),
    Target('validation', '', validation.WARM, validation.PASSES, 0.10),
)


def measured(target: Target, tables: Sequence[Table]) -> float | None:
    """The ratio that a target bounds; ``None`` when it was not measured."""
    for table in tables:
        if table.level == target.level and target.title in table.title:
            values = [
                getattr(row, target.quantity) if row is not None else None
                for row in (table.row(target.variant), table.row(target.by))
            ]
            if None not in values and values[1]:
                return values[0] / values[1]
    return None
