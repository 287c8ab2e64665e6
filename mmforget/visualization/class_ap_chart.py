"""A bar chart of per-class AP before and after a task."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmforget.structures import ForgettingTask
from mmforget.visualization.figures import (
    FORGET_COLOUR,
    GREY,
    OLD_COLOUR,
    RETAINED_COLOUR,
    new_figure,
    plain_axes,
)

ClassAPPair = Sequence[float | None]


def class_ap_chart(
    task: ForgettingTask, per_class: Mapping[str, ClassAPPair], max_retained: int = 60
) -> Figure:
    """AP of each class, of the loaded detector and after the task, set by set.

    Args:
        task: The task; says which set a class belongs to.
        per_class: Class -> (AP of the loaded detector, AP after the task), 0..1, ``None`` where
            undefined or unknown.
        max_retained: Where more classes are retained, those that changed most are shown.

    Raises:
        ValueError: A class of the task is not in ``per_class``.
    """
    missing = [name for name in task.classes if name not in per_class]
    if missing:
        raise ValueError(
            f'per_class has no entry for {", ".join(missing)} of {task.name}; it has '
            f'{", ".join(per_class) or "none"}.'
        )
    shown, heading = _most_changed(task.retained, per_class, max_retained)
    sets = [
        ('forgotten now', task.classes, FORGET_COLOUR),
        ('forgotten earlier', task.forgotten, OLD_COLOUR),
        (heading, shown, RETAINED_COLOUR),
    ]
    sets = [(label, names, colour) for label, names, colour in sets if names]
    lines = sum(len(names) + 1.2 for _, names, _ in sets)
    figure = new_figure(7.5, 1.5 + 0.27 * lines)
    axes = figure.add_subplot()
    plain_axes(axes)
    limit = max([0.05, *(ap for pair in per_class.values() for ap in pair if ap is not None)])
    axes.set_xlim(0, limit * 1.02)
    axes.grid(axis='x', color='#DDDDDD', linewidth=0.8)
    ticks, at = [], 0.0
    for label, names, colour in sets:
        axes.text(
            *(0.008, at),
            label,
            transform=axes.get_yaxis_transform(),
            fontsize=9,
            fontweight='bold',
            color=colour,
            va='center',
        )
        at += 1
        for name in names:
            _draw_pair(axes, at, per_class[name], colour)
            ticks.append((at, name))
            at += 1
        at += 0.2
    axes.set_ylim(at - 0.4, -0.7)
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=9)
    axes.set_xlabel('AP', fontsize=9)
    axes.set_title(f'AP of each class after {task.name}', fontsize=11, loc='left')
    figure.legend(
        handles=[
            Patch(facecolor='white', edgecolor=GREY, label='loaded detector'),
            Patch(facecolor=GREY, edgecolor=GREY, label=f'after {task.name}'),
        ],
        loc='outside lower center',
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    return figure


def _most_changed(
    names: Sequence[str], per_class: Mapping[str, ClassAPPair], number: int
) -> tuple[list[str], str]:
    """The classes that changed most, in label order, and a heading that owns up to it."""
    known = [name for name in names if name in per_class]
    if len(known) <= number:
        return known, 'retained'

    def change(name: str) -> float:
        before, after = per_class[name]
        return -1.0 if before is None or after is None else abs(after - before)

    chosen = set(sorted(known, key=change, reverse=True)[:number])
    return (
        [name for name in known if name in chosen],
        f'retained: the {number} of {len(known)} that changed most',
    )


def _draw_pair(axes: Axes, at: float, pair: ClassAPPair, colour: str) -> None:
    before, after = pair
    if before is not None:
        axes.barh(at - 0.2, before, 0.34, facecolor='white', edgecolor=colour, linewidth=1)
    if after is not None:
        axes.barh(at + 0.2, after, 0.34, facecolor=colour, edgecolor=colour, linewidth=1)
    text = f'{_number(before)} \N{RIGHTWARDS ARROW} {_number(after)}'
    if before is None and after is None:
        text = 'no objects'
    # Outside on the right, where no bar is.
    axes.text(
        *(1.01, at),
        text,
        transform=axes.get_yaxis_transform(),
        fontsize=8,
        color=GREY,
        va='center',
    )


def _number(value: float | None) -> str:
    return '?' if value is None else f'{value:.3f}'
