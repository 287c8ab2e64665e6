"""A panel of validation images: ground truth, the loaded detector, the detector after a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import Bbox, IdentityTransform

from mmforget.structures import ForgettingTask
from mmforget.visualization.figures import (
    FORGET_COLOUR,
    GREY,
    OLD_COLOUR,
    RETAINED_COLOUR,
    new_figure,
)

# In inches.
_CELL = 2.9
_GAP = 0.08
_LEFT = 0.45
_TOP = 0.62
_LEGEND_LINE = 0.22
_LEGEND_ENTRY = 1.6
_LETTER = 0.1


@dataclass(frozen=True)
class Boxes:
    """Objects of one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the image.
        labels: (N,), indices into the label map.
        scores: (N,) in 0..1; ``None`` for ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class PanelImage:
    """One column of the panel.

    Attributes:
        name: The image's name.
        pixels: RGB, uint8, (height, width, 3).
        truth: Ground truth.
        before: What the loaded detector finds; ``None`` if unknown.
        after: What the detector finds after the task.
    """

    name: str
    pixels: np.ndarray
    truth: Boxes
    before: Boxes | None
    after: Boxes


@dataclass(frozen=True)
class _Look:
    """How the boxes of a set are drawn; told apart by line style as well as by colour."""

    colour: str
    line: str
    width: float


_FORGET = _Look(FORGET_COLOUR, '-', 2.6)
_OLD = _Look(OLD_COLOUR, '--', 2.0)
_RETAINED = _Look(RETAINED_COLOUR, '-', 1.3)


def detection_panel(
    task: ForgettingTask,
    classes: Sequence[str],
    images: Sequence[PanelImage],
    score_threshold: float,
) -> Figure:
    """One column for each image; rows: ground truth, loaded detector, detector after the task.

    Args:
        task: The task; its classes and those forgotten earlier are marked.
        classes: The label map.
        images: The images, at least one. Where no image has ``before``, its row is left out.
        score_threshold: Detections below are not drawn.

    Raises:
        ValueError: There is no image.
    """
    if not images:
        raise ValueError('A panel of detections needs at least one image, got none.')
    rows = [('ground truth', [image.truth for image in images])]
    if any(image.before is not None for image in images):
        rows.append(('loaded detector', [image.before for image in images]))
    rows.append((f'after {task.name}', [image.after for image in images]))
    ratios = [image.pixels.shape[0] / image.pixels.shape[1] for image in images]
    cell_height = _CELL * min(max(*ratios, 0.5), 1.6)
    width = _LEFT + len(images) * (_CELL + _GAP)
    entries = _legend_entries(task, score_threshold)
    columns = min(len(entries), int(width / _LEGEND_ENTRY))
    legend_height = 0.15 + _LEGEND_LINE * ceil(len(entries) / columns)
    height = _TOP + len(rows) * (cell_height + _GAP) + legend_height
    figure = new_figure(width, height, constrained=False)
    looks = _looks(task, classes)
    for line, (title, column) in enumerate(rows):
        for at, (image, boxes) in enumerate(zip(images, column, strict=True)):
            left = _LEFT + at * (_CELL + _GAP)
            bottom = height - _TOP - (line + 1) * (cell_height + _GAP) + _GAP
            axes = figure.add_axes(
                (left / width, bottom / height, _CELL / width, cell_height / height)
            )
            axes.imshow(image.pixels)
            axes.set_axis_off()
            axes.apply_aspect()  # Or labels would be placed in axes of another shape.
            if line == 0:
                axes.set_title(image.name, fontsize=8, color=GREY, pad=3)
            if boxes is not None:
                _draw_boxes(axes, boxes, classes, looks, score_threshold)
        middle = height - _TOP - line * (cell_height + _GAP) - cell_height / 2
        figure.text(
            *(0.22 / width, middle / height),
            title,
            rotation=90,
            ha='center',
            va='center',
            fontsize=11,
        )
    title = f'{task.name} forgets {", ".join(task.classes)}'
    figure.text(
        *(_LEFT / width, 1 - 0.1 / height),
        shorten(title, int((width - _LEFT) / _LETTER), placeholder=' ...'),
        fontsize=12,
        va='top',
    )
    figure.legend(handles=entries, loc='lower center', ncols=columns, fontsize=9, frameon=False)
    return figure


def _looks(task: ForgettingTask, classes: Sequence[str]) -> list[_Look]:
    """How boxes of each label are drawn."""
    forget, old = set(task.classes), set(task.forgotten)
    return [_FORGET if n in forget else _OLD if n in old else _RETAINED for n in classes]


def _legend_entries(task: ForgettingTask, score_threshold: float) -> list[Line2D]:
    entries = [('forgotten now', _FORGET), ('retained', _RETAINED)]
    if task.forgotten:
        entries.insert(1, ('forgotten earlier', _OLD))
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.line, linewidth=look.width, label=label)
        for label, look in entries
    ]
    handles.append(Line2D([], [], linestyle='', label=f'scores from {score_threshold:g}'))
    return handles


def _draw_boxes(
    axes: Axes,
    found: Boxes,
    classes: Sequence[str],
    looks: Sequence[_Look],
    score_threshold: float,
) -> None:
    """Boxes first, the surest on top, then their labels, the surest first."""
    order = np.arange(len(found.labels))
    if found.scores is not None:
        order = order[found.scores >= score_threshold]
        order = order[np.argsort(-found.scores[order], kind='stable')]
    for index in order[::-1]:
        x1, y1, x2, y2 = found.boxes[index]
        look = looks[found.labels[index]]
        axes.add_patch(
            Rectangle(
                (x1, y1),
                *(x2 - x1, y2 - y1),
                fill=False,
                edgecolor=look.colour,
                linestyle=look.line,
                linewidth=look.width,
                # A white rim keeps the line visible on any picture.
                path_effects=[Stroke(linewidth=look.width + 1.6, foreground='white'), Normal()],
            )
        )
    placed: list[Bbox] = []
    for index in order:
        text = classes[found.labels[index]]
        if found.scores is not None:
            text += f' {found.scores[index]:.2f}'
        placed.append(_label(axes, found.boxes[index], text, looks[found.labels[index]], placed))


def _label(axes: Axes, box: np.ndarray, text: str, look: _Look, placed: Sequence[Bbox]) -> Bbox:
    """Writes a label at the corner of its box where it covers other labels least."""
    drawn = axes.text(
        *(0, 0),
        text,
        transform=IdentityTransform(),
        fontsize=7,
        color='white',
        va='bottom',
        ha='left',
        bbox={'facecolor': look.colour, 'edgecolor': 'white', 'linewidth': 0.6, 'pad': 1.2},
    )
    renderer = axes.figure.canvas.get_renderer()
    assert isinstance(renderer, RendererAgg)
    pad = 1.2 * axes.figure.dpi / 72
    size = drawn.get_window_extent(renderer)
    width, height = size.width + 2 * pad, size.height + 2 * pad
    room = axes.get_window_extent(renderer)
    left, top = axes.transData.transform(box[:2])
    right, bottom = axes.transData.transform(box[2:])
    places = [
        (x, y) for y in (top, top - height, bottom - height, bottom) for x in (left, right - width)
    ]
    kept = [_keep_inside(x, y, width, height, room) for x, y in places]
    best = min(kept, key=lambda place: sum(_overlap(place, other) for other in placed))
    drawn.set_position((best.x0 + pad, best.y0 + pad))
    return best


def _keep_inside(x: float, y: float, width: float, height: float, room: Bbox) -> Bbox:
    x = min(max(x, room.x0), max(room.x1 - width, room.x0))
    y = min(max(y, room.y0), max(room.y1 - height, room.y0))
    return Bbox.from_bounds(x, y, width, height)


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else common.width * common.height
