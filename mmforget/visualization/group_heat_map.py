"""A heat map of the groups' norms: which groups lived in which task."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmforget.visualization.figures import GREY, new_figure

_NUMBERED = 200
_TALLEST = 40.0


def group_heat_map(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Norm of each group (rows) after each task (columns); dead groups are hatched.

    Args:
        rows: The rows of a results file, each with ``task``, ``classes`` and ``groups`` (name ->
            norm, 0 when dead).

    Raises:
        ValueError: No row has groups, as with a trainable part without any.
    """
    names = list(dict.fromkeys(name for row in rows for name in row['groups']))
    if not names:
        raise ValueError('No task has groups, so there are no norms to draw.')
    norms = np.array([[row['groups'].get(name, np.nan) for row in rows] for name in names])
    alive = np.ma.masked_where(~(norms > 0), norms)
    width = 2.2 + 0.075 * max(map(len, names)) + 1.15 * len(rows)
    figure = new_figure(width, min(1.6 + 0.3 * len(names), _TALLEST))
    axes = figure.add_subplot()
    top = float(alive.max()) if alive.count() else 1.0
    image = axes.imshow(alive, cmap=colormaps['cividis'], vmin=0, vmax=top, aspect='auto')
    for line, column in zip(*np.nonzero(norms == 0), strict=True):
        axes.add_patch(
            Rectangle(
                (column - 0.5, line - 0.5),
                *(1, 1),
                facecolor='#F2F2F2',
                edgecolor='#BBBBBB',
                hatch='////',
                linewidth=0,
            )
        )
    if norms.size <= _NUMBERED:
        for (line, column), norm in np.ndenumerate(norms):
            if norm > 0:
                dark = norm < 0.55 * top
                colour = 'white' if dark else 'black'
                _write(axes, column, line, f'{norm:.3g}', colour)
            elif norm == 0:
                _write(axes, column, line, 'dead', GREY)
    labels = [f'task_{row["task"]}\n{fill(", ".join(row["classes"]), 15)}' for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) <= 60 else 6)
    axes.tick_params(length=0)
    # White lines between the cells.
    axes.set_xticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which='minor', color='white', linewidth=1.5)
    axes.tick_params(which='minor', length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label('norm of the group', fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    axes.set_title('Groups after each task', fontsize=11, loc='left')
    return figure


def _write(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    box = {'facecolor': '#F2F2F2', 'edgecolor': 'none', 'pad': 1} if text == 'dead' else None
    axes.text(x, y, text, ha='center', va='center', fontsize=8, color=colour, bbox=box)
