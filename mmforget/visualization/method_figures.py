"""Figures that set methods side by side: against steps and tasks, forgetting and keeping."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmforget.evaluation.forgetting_scores import relative
from mmforget.visualization.figures import GREY, new_figure, plain_axes

Documents = Mapping[str, Sequence[Mapping[str, Any]]]
Points = Sequence[Mapping[str, Any]]
_MARKERS = 'osD^vP*Xh<>pd8H'


def step_curves(curves: Mapping[str, Points], prefix: str = 'AP') -> Figure:
    """AP_r and AP_f of some methods against the steps of all tasks in a row.

    Args:
        curves: Name of a method -> ``points`` of its ``curves.json``.
        prefix: ``'AP'`` or ``'Acc'``.

    Raises:
        ValueError: There is no curve.
    """
    if not curves:
        raise ValueError('There is no curve to draw; run with ForgettingCurvesHook.')
    figure = new_figure(11, 4.2)
    panels = figure.subplots(1, 2)
    titles = ((f'{prefix}_r', 'what is retained'), (f'{prefix}_f', 'what is forgotten now'))
    for axes, (score, meaning) in zip(panels, titles, strict=True):
        for number, (name, points) in enumerate(curves.items()):
            steps = _running(points)
            values = [_or_nan(point['full'].get(score)) for point in points]
            axes.plot(steps, values, **_style(number), label=name)
        for end in _ends(next(iter(curves.values())))[:-1]:
            axes.axvline(end, color=GREY, linestyle=':', linewidth=1)
        _label(axes, 'optimiser steps', score, f'{score}: {meaning}')
        axes.set_ylim(bottom=0)
    _legend(figure, panels[0])
    return figure


def task_curves(runs: Documents, protocol: str = 'full') -> Figure:
    """AP_f, AP_o, AP_r by the loaded model's and H by its ceiling after each task.

    Raises:
        ValueError: There is no run.
    """
    if not runs:
        raise ValueError('There is no run to draw.')
    prefix = _prefix(runs, protocol)
    figure = new_figure(11, 8)
    panels = figure.subplots(2, 2).ravel()
    scores = {
        f'{prefix}_f': ('what is left of the forgotten', lambda s: s[f'{prefix}_f']),
        f'{prefix}_o': ('what comes back', lambda s: s[f'{prefix}_o']),
        f"{prefix}_r / loaded model's": ('what is kept', lambda s: s[f'{prefix}_r_relative']),
        'H / its ceiling': ('both in one', lambda s: relative(s['H'], s['H_ceiling'])),
    }
    for axes, (score, (meaning, value)) in zip(panels, scores.items(), strict=True):
        for number, (name, documents) in enumerate(runs.items()):
            means = _means(
                [[value(row[protocol]) for row in document['tasks']] for document in documents]
            )
            axes.plot(range(1, len(means) + 1), means, **_style(number), label=name)
        axes.set_xticks(range(1, len(means) + 1))
        _label(axes, 'task', score, f'{score}: {meaning}')
    for axes in panels[2:]:
        axes.axhline(1, color=GREY, linestyle='--', linewidth=1.2)
    _legend(figure, panels[0])
    return figure


def trade_off(runs: Documents, protocol: str = 'full') -> Figure:
    """What is left of forgotten classes against what is left of retained ones, after the last task.

    Each method is a point, seeds averaged: to the right it keeps, downwards it forgets.

    Raises:
        ValueError: There is no run.
    """
    if not runs:
        raise ValueError('There is no run to draw.')
    prefix = _prefix(runs, protocol)
    figure = new_figure(7.5, 5)
    axes = figure.add_subplot()
    for number, (name, documents) in enumerate(runs.items()):
        last = [document['tasks'][-1][protocol] for document in documents]
        shares = [scores[f'{prefix}_r_relative'] for scores in last]
        if None in shares:  # The loaded model finds none of what is retained.
            continue
        kept = mean(shares)
        left = mean(max(scores[f'{prefix}_f'], scores[f'{prefix}_o'] or 0.0) for scores in last)
        style = _style(number)
        axes.scatter(kept, left, color=style['color'], marker=style['marker'], s=60, label=name)
    axes.axvline(1, color=GREY, linestyle='--', linewidth=1.2)
    axes.axhline(0.01, color=GREY, linestyle=':', linewidth=1)
    _label(
        axes,
        f"{prefix}_r / loaded model's {prefix}_r",
        f'larger of {prefix}_f and {prefix}_o',
        'After the last task',
    )
    _legend(figure, axes)
    return figure


def sparsity_path(runs: Documents, strengths: Mapping[str, str]) -> Figure:
    """In how many tasks each group lives, by the strength of the sparsity.

    Args:
        runs: Name of a run -> contents of its results files.
        strengths: Name of a run -> its label, in the order of the columns.

    Raises:
        ValueError: There is no run with groups.
    """
    names = [name for name in strengths if name in runs]
    if not names or not runs[names[0]][0]['tasks'][0]['groups']:
        raise ValueError('There is no run with groups to draw.')
    groups = list(runs[names[0]][0]['tasks'][0]['groups'])
    shares = np.array(
        [
            [
                mean(
                    float(row['groups'][group] > 0)
                    for document in runs[name]
                    for row in document['tasks']
                )
                for name in names
            ]
            for group in groups
        ]
    )
    longest = max(map(len, groups))
    figure = new_figure(2.5 + 0.075 * longest + 0.8 * len(names), 1.6 + 0.35 * len(groups))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=colormaps['cividis'], vmin=0, vmax=1, aspect='auto')
    axes.set_xticks(range(len(names)), [strengths[name] for name in names], fontsize=9)
    axes.set_yticks(range(len(groups)), groups, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel('strength', fontsize=9)
    axes.set_title('Groups that live', fontsize=11, loc='left')
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label('share of the tasks', fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _prefix(runs: Documents, protocol: str) -> str:
    first = next(iter(runs.values()))[0]['tasks'][0][protocol]
    return 'Acc' if 'Acc_f' in first else 'AP'


def _running(points: Points) -> list[int]:
    """Steps counted through all tasks."""
    ends = [0, *_ends(points)]
    return [ends[point['task'] - 1] + point['step'] for point in points]


def _ends(points: Points) -> list[int]:
    """Where each task ends."""
    last = {point['task']: point['step'] for point in points}
    return np.cumsum([last[task] for task in sorted(last)]).tolist()


def _means(by_seed: Sequence[Sequence[float | None]]) -> list[float]:
    return [
        float('nan') if any(v is None for v in values) else mean(values)
        for values in zip(*by_seed, strict=True)
    ]


def _or_nan(value: float | None) -> float:
    return float('nan') if value is None else value


def _style(number: int) -> dict[str, Any]:
    """Colour and marker of a method: no two of 15 are alike in both."""
    return {
        'color': colormaps['tab10'](number % 10),
        'marker': _MARKERS[number % len(_MARKERS)],
        'markersize': 5,
        'linewidth': 1.5,
    }


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    plain_axes(axes)
    axes.grid(axis='y', color='#DDDDDD', linewidth=0.8)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=11, loc='left')


def _legend(figure: Figure, axes: Axes) -> None:
    """One for all panels, beside them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right center', fontsize=8, frameon=False)
