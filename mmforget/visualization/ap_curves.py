"""Curves over the tasks: AP of the three sets, and what is kept relative to the start."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmforget.evaluation.forgetting_scores import mean_ap, relative
from mmforget.structures import ForgettingTask
from mmforget.visualization.figures import (
    FORGET_COLOUR,
    GREY,
    H_COLOUR,
    OLD_COLOUR,
    RETAINED_COLOUR,
    new_figure,
    plain_axes,
)

Values = Sequence[float | None]


def ap_curves(
    tasks: Sequence[ForgettingTask], rows: Sequence[Mapping[str, Any]], protocol: str = 'full'
) -> Figure:
    """AP_r, AP_f and AP_o after each task; beside them AP_r and H relative to what can be had.

    Dashed lines are the loaded detector's AP on the same classes (full protocol only, where it
    follows from the per-class AP).

    Args:
        tasks: The tasks done so far.
        rows: Their rows of the results file.
        protocol: ``'full'`` or ``'restricted'``.

    Raises:
        ValueError: There is no row, or a row was not evaluated under the protocol.
    """
    if not rows or any(not row.get(protocol) for row in rows):
        raise ValueError(
            f'There are {len(rows)} tasks, and not all of them have scores of the {protocol!r} '
            "protocol. Run them with val_evaluator=dict(type='mmforget.ForgettingCocoMetric')."
        )
    scores = [row[protocol] for row in rows]
    width = max(1.5 * len(rows) + 1.6, 4.0)
    figure = new_figure(2 * width, 4.4)
    left, right = figure.subplots(1, 2)
    # AP_f and AP_o often lie on one another at 0: the one above is the thinner one.
    curves = [
        ('AP_r', 'retained', RETAINED_COLOUR, 'o', 2.0, lambda task: task.retained),
        ('AP_f', 'forgotten now', FORGET_COLOUR, 's', 4.0, lambda task: task.classes),
        ('AP_o', 'forgotten earlier', OLD_COLOUR, '^', 1.5, lambda task: task.forgotten),
    ]
    for key, meaning, colour, marker, thickness, names in curves:
        if protocol == 'full':
            _draw_dashed(left, _loaded(tasks, rows, names), colour, marker)
        _draw(left, [s[key] for s in scores], colour, marker, f'{key}: {meaning}', thickness)
    if protocol == 'full':
        left.plot([], [], color=GREY, linestyle='--', linewidth=1.2, label='loaded detector')
    left.set_ylabel(f'AP ({protocol} protocol)', fontsize=9)
    left.set_title('AP of the three sets', fontsize=11, loc='left')

    right.axhline(1, color=GREY, linestyle='--', linewidth=1.2, zorder=1)
    kept = [score['AP_r_relative'] for score in scores]
    reached = [relative(score['H'], score['H_ceiling']) for score in scores]
    _draw(right, kept, RETAINED_COLOUR, 'o', "AP_r / loaded detector's AP_r")
    _draw(right, reached, H_COLOUR, 'D', 'H / its ceiling')
    right.set_ylabel('ratio', fontsize=9)
    right.set_title('Relative AP_r and H', fontsize=11, loc='left')
    known = [value for value in (*kept, *reached) if value is not None]
    for axes in (left, right):
        plain_axes(axes)
        axes.grid(axis='y', color='#DDDDDD', linewidth=0.8)
        labels = [f'task_{row["task"]}\n{fill(", ".join(row["classes"]), 16)}' for row in rows]
        axes.set_xticks(range(len(rows)), labels, fontsize=9)
        axes.set_xlim(-0.4, len(rows) - 0.6)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9, frameon=False
            )
    left.set_ylim(bottom=-0.02)
    right.set_ylim(min([0.9, *known]) - 0.02, max([1.0, *known]) + 0.02)
    return figure


def _loaded(
    tasks: Sequence[ForgettingTask],
    rows: Sequence[Mapping[str, Any]],
    names: Callable[[ForgettingTask], Sequence[str]],
) -> Values:
    """Mean AP of the loaded detector on a set of each task."""
    values = []
    for task, row in zip(tasks, rows, strict=True):
        before = {name: pair[0] for name, pair in row.get('per_class', {}).items()}
        values.append(mean_ap(before, names(task)) if before else None)
    return values


def _draw(
    axes: Axes, values: Values, colour: str, marker: str, label: str, thickness: float = 2.0
) -> None:
    """A curve of the detector after each task."""
    style = {'markersize': 5 + 1.2 * thickness, 'linewidth': thickness, 'label': label, 'zorder': 3}
    _plot(axes, values, color=colour, marker=marker, **style)


def _draw_dashed(axes: Axes, values: Values, colour: str, marker: str) -> None:
    """The same of the loaded detector."""
    style = {'markersize': 5, 'markerfacecolor': 'white', 'linestyle': '--', 'linewidth': 1.2}
    _plot(axes, values, color=colour, marker=marker, zorder=2, **style)


def _plot(axes: Axes, values: Values, **style: Any) -> None:
    """One curve, with gaps where a value is undefined; nothing if all are."""
    if any(value is not None for value in values):
        # Not clipped, so that markers at the edge stay whole.
        axes.plot(range(len(values)), _with_gaps(values), clip_on=False, **style)


def _with_gaps(values: Values) -> list[float]:
    return [float('nan') if value is None else value for value in values]
