"""Made-up results, and a look at what is drawn: nothing cut, no two labels over each other."""

from itertools import combinations

import pytest

CLASSES = (
    *('t-shirt', 'trouser', 'pullover', 'dress', 'coat'),
    *('sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot'),
)
REQUESTS = (('bag', 'sneaker'), ('trouser', 'sandal'), ('dress', 'shirt'))


@pytest.fixture(scope='session')
def scenario():
    from mmforget.structures import ForgettingScenario

    return ForgettingScenario.from_requests(REQUESTS, CLASSES)


@pytest.fixture(scope='session')
def results(scenario):
    """Content of a results file: classes lose all but a little, the others a little."""
    from dataclasses import asdict

    from mmforget.evaluation.forgetting_scores import protocol_result, set_means

    base = {name: 0.4 + 0.03 * label for label, name in enumerate(CLASSES)}
    rows = []
    for task in scenario.tasks:
        gone = {*task.classes, *task.forgotten}
        now = {n: 0.02 if n in gone else ap - 0.01 * (task.index + 1) for n, ap in base.items()}
        scores = protocol_result(set_means(task, now, now), set_means(task, base, base))
        norms = [0.0, 0.5, 3.25] if task.index else [0.0, 0.0, 1.5]
        rows.append(
            {
                'task': task.index + 1,
                'classes': list(task.classes),
                'groups': {f'decoder.layers.{i}': norm for i, norm in enumerate(norms)},
                'full': asdict(scores),
                'restricted': {},
                'per_class': {name: [base[name], now[name]] for name in CLASSES},
            }
        )
    return {'schema': 1, 'base': {'per_class': base}, 'tasks': rows}


def drawn_texts(figure):
    """All texts that are drawn: ticks outside the limits exist, too, but are not."""
    texts = [*figure.texts]
    for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes)]:
        texts += legend.get_texts() if legend else []
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(t.label1 for t in ticks), *(t.label2 for t in ticks)]
    return [text for text in texts if text.get_text().strip() and text.get_visible()]


@pytest.fixture(scope='session')
def assert_readable():
    """Every text lies inside the figure and none lies over another."""

    def check(figure):
        figure.canvas.draw()
        extents = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
        assert extents
        for text, box in extents:
            assert box.x0 >= 0 and box.y0 >= 0, f'{text!r} is cut'
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, f'{text!r} is cut'
        for (one, a), (other, b) in combinations(extents, 2):
            common = a.intersection(a, b)
            # A pixel of a glyph's empty border is no overlap to the eye.
            assert common is None or min(common.width, common.height) < 1.5, f'{one!r}, {other!r}'

    return check
