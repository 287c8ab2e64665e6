"""The panel of images before and after a task."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from mmforget.visualization.detection_panel import Boxes, PanelImage, detection_panel
from mmforget.visualization.figures import FORGET_COLOUR, OLD_COLOUR, RETAINED_COLOUR

CLASSES = ('t-shirt', 'trouser', 'coat', 'bag')


@pytest.fixture(scope='module')
def task():
    from mmforget.structures import ForgettingScenario

    return ForgettingScenario.from_requests([['trouser'], ['bag']], CLASSES).tasks[1]


def boxes(*entries):
    """(label, score) -> objects side by side; truth where the score is ``None``."""
    scores = [score for _, score in entries]
    return Boxes(
        np.array([[10 + 40 * i, 20, 45 + 40 * i, 70] for i in range(len(entries))], float),
        np.array([label for label, _ in entries], int),
        None if None in scores else np.array(scores, float),
    )


def image(before=None, after=None, shape=(100, 150, 3)):
    pixels = np.full(shape, 90, np.uint8)
    truth = boxes((0, None), (3, None))
    return PanelImage('000.png', pixels, truth, before, after or boxes())


def drawn(axes):
    found = [p for p in axes.patches if isinstance(p, Rectangle)]
    return [tuple(map(float, (*p.get_xy(), p.get_width(), p.get_height()))) for p in found]


def labels(axes):
    return sorted(text.get_text() for text in axes.texts)


def test_rows_are_truth_before_and_after(task, assert_readable):
    before = boxes((0, 0.9), (3, 0.8), (1, 0.29))
    figure = detection_panel(task, CLASSES, [image(before, boxes((0, 0.85)))], 0.3)
    truth, loaded, after = figure.axes
    assert labels(truth) == ['bag', 't-shirt']
    assert labels(loaded) == ['bag 0.80', 't-shirt 0.90'], 'what is unsure is not drawn'
    assert labels(after) == ['t-shirt 0.85']
    assert sorted(drawn(truth)) == [(10, 20, 35, 50), (50, 20, 35, 50)]
    assert {'ground truth', 'loaded detector', 'after task_2'} <= {
        text.get_text() for text in figure.texts
    }
    assert_readable(figure)


def test_sets_differ_in_colour_and_in_line(task):
    found = boxes((0, 0.9), (1, 0.8), (3, 0.7))
    axes = detection_panel(task, CLASSES, [image(found, found)], 0.3).axes[-1]
    looks = {p.get_edgecolor(): (p.get_linestyle(), p.get_linewidth()) for p in axes.patches}
    assert len(looks) == 3 and len(set(looks.values())) == 3
    by_text = {t.get_text()[:-5]: t.get_bbox_patch().get_facecolor() for t in axes.texts}
    from matplotlib.colors import to_rgba

    wanted = {'t-shirt': RETAINED_COLOUR, 'trouser': OLD_COLOUR, 'bag': FORGET_COLOUR}
    assert by_text == {name: to_rgba(colour) for name, colour in wanted.items()}


def test_without_the_loaded_detector_its_row_is_left_out(task):
    assert len(detection_panel(task, CLASSES, [image(None, boxes((0, 0.9)))], 0.3).axes) == 2


def test_labels_of_boxes_on_one_another_stay_apart(task, assert_readable):
    """Two detections of one object would hide each other's label."""
    both = Boxes(
        np.array([[30, 30, 120, 80]] * 4, float), np.arange(4), np.array([0.9, 0.8, 0.7, 0.6])
    )
    assert_readable(detection_panel(task, CLASSES, [image(both, both)], 0.3))


def test_labels_stay_on_their_image(task, assert_readable):
    """Also those of boxes at the border and of boxes that reach beyond it."""
    found = Boxes(
        np.array([[-20, -20, 30, 30], [130, 80, 170, 120], [0, 0, 150, 100]], float),
        np.array([0, 2, 3]),
        np.array([0.9, 0.8, 0.7]),
    )
    figure = detection_panel(task, CLASSES, [image(found, found)] * 2, 0.3)
    figure.canvas.draw()
    for axes in figure.axes[2:]:
        room = axes.get_window_extent()
        for text in axes.texts:
            extent = text.get_bbox_patch().get_window_extent()
            assert room.x0 - 1 <= extent.x0 and extent.x1 <= room.x1 + 1
            assert room.y0 - 1 <= extent.y0 and extent.y1 <= room.y1 + 1


def test_images_of_all_shapes(task, assert_readable):
    shapes = [(480, 640, 3), (640, 427, 3), (64, 64, 3), (200, 900, 3)]
    figure = detection_panel(task, CLASSES, [image(shape=shape) for shape in shapes], 0.3)
    assert len(figure.axes) == 2 * len(shapes)
    assert_readable(figure)


def test_a_long_request_is_shortened(assert_readable):
    from mmforget.structures import ForgettingScenario

    classes = [f'class {i}' for i in range(80)]
    task = ForgettingScenario.from_requests([classes[:70]], classes).tasks[0]
    figure = detection_panel(task, classes, [image()], 0.3)
    assert any(text.get_text().endswith('...') for text in figure.texts)
    assert_readable(figure)


def test_no_images(task):
    with pytest.raises(ValueError, match='at least one image'):
        detection_panel(task, CLASSES, [], 0.3)
