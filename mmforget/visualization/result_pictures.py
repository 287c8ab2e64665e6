"""All pictures that a results file alone can give."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.visualization.ap_curves import ap_curves
from mmforget.visualization.class_ap_chart import class_ap_chart
from mmforget.visualization.group_heat_map import group_heat_map


def result_pictures(
    document: Mapping[str, Any], protocol: str = 'full', last_only: bool = False
) -> dict[str, Figure]:
    """Draws ``class_ap`` for each task, ``ap_curves`` and ``group_norms`` over all of them.

    What was not measured is left out: charts of AP where nothing was evaluated, norms where the
    trainable part has no groups.

    Args:
        document: Content of a ``forgetting.json``, finished or not.
        protocol: Of the curves; ``'full'`` or ``'restricted'``.
        last_only: The bar chart of the last task alone.

    Returns:
        Name of a picture, ``task_1_class_ap`` for example -> figure.

    Raises:
        ValueError: There is no task, or the protocol was not measured.
    """
    rows = document['tasks']
    if not rows:
        raise ValueError('The results hold no task yet; let at least one task end.')
    figures: dict[str, Figure] = {}
    if all(row['per_class'] for row in rows):
        tasks = _tasks(rows)
        for task in tasks[-1:] if last_only else tasks:
            figures[f'{task.name}_class_ap'] = class_ap_chart(task, rows[task.index]['per_class'])
        figures['ap_curves'] = ap_curves(tasks, rows, protocol)
    if any(row['groups'] for row in rows):
        figures['group_norms'] = group_heat_map(rows)
    return figures


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Sequence[ForgettingTask]:
    classes = list(rows[0]['per_class'])
    return ForgettingScenario.from_requests([row['classes'] for row in rows], classes).tasks
