"""Figures by matplotlib's object-oriented interface: no pyplot, nothing global is touched."""

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 120
# Of Okabe and Ito's palette, which the colour-blind tell apart, too; nothing is told by colour
# alone all the same.
FORGET_COLOUR = '#D55E00'
OLD_COLOUR = '#AA4499'
RETAINED_COLOUR = '#0072B2'
H_COLOUR = '#00795A'
GREY = '#555555'


def new_figure(width: float, height: float, constrained: bool = True) -> Figure:
    """An empty white figure.

    Args:
        width: In inches.
        height: In inches.
        constrained: Let matplotlib lay the axes out; otherwise they stay where they are put.
    """
    layout = 'constrained' if constrained else None
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes) -> None:
    """A light look: no frame above and to the right, small ticks, a pale grid below the data."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=9, length=3, colors='black')
    axes.set_axisbelow(True)


def figure_pixels(figure: Figure) -> np.ndarray:
    """The drawn figure: RGB, uint8, (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG file's content from RGB pixels, uint8, (height, width, 3)."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format='png')
    return buffer.getvalue()
