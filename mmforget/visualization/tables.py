"""Tables in plain text, drawn from results files alone."""

from collections.abc import Mapping, Sequence
from typing import Any

DEMO_HEADER = (
    'run',
    'after task',
    'forgets',
    'AP_f',
    'AP_o',
    'AP_r',
    'AP_r relative',
    'H relative',
    'living groups',
    'trainable',
    'seconds',
)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads as Markdown, too."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + ' |'
        for row in cells
    ]
    lines.insert(1, '| ' + ' | '.join('-' * w for w in widths) + ' |')
    return '\n'.join(lines)


def demo_table(results: Mapping[str, Mapping[str, Any]], protocol: str = 'full') -> str:
    """One line per run and task, metrics on the full validation set, then the loaded detector.

    What was not measured is a dash.

    Args:
        results: Name of a run -> content of its ``forgetting.json``.
        protocol: ``'full'`` or ``'restricted'``.
    """
    rows = []
    for name, document in results.items():
        for row in document['tasks']:
            scores = row[protocol]
            living = [group for group, norm in row['groups'].items() if norm > 0]
            rows.append(
                [
                    name,
                    str(row['task']),
                    ', '.join(row['classes']),
                    _number(scores.get('AP_f')),
                    _number(scores.get('AP_o')),
                    _number(scores.get('AP_r')),
                    _number(scores.get('AP_r_relative')),
                    _number(_ratio(scores.get('H'), scores.get('H_ceiling'))),
                    f'{len(living)}/{len(row["groups"])}: {_short(living)}',
                    f'{100 * row["trainable_share"]:.2f} %',
                    f'{row["seconds"]:.0f}',
                ]
            )
    first = next(iter(results.values()))
    slots = [norm for row in first['tasks'] for norm in row['groups'].values()]
    dead = sum(norm == 0 for norm in slots)
    base = first['base'].get('full', {})
    return '\n'.join(
        [
            text_table(DEMO_HEADER, rows),
            '',
            f'Loaded detector: AP {_number(base.get("AP"))}, AP50 {_number(base.get("AP50"))} on '
            'all classes. Relative: AP_r to the loaded detector on the same classes, H to its '
            'ceiling (AP_f = 0, AP_r unchanged).',
            f'{next(iter(results))}: {dead} of {len(slots)} group slots dead.',
        ]
    )


def mask_results(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """A results file's content with the scores of masks in the place of those of boxes.

    Args:
        document: Content of a ``forgetting.json``.

    Returns:
        The same with each row's ``segm`` block in the row; ``None`` where masks were not scored.
    """
    if not all(row.get('segm') for row in document['tasks']):
        return None
    tasks = [{**row, **row['segm']} for row in document['tasks']]
    return {**document, 'base': document['base'].get('segm', {}), 'tasks': tasks}


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def _short(groups: Sequence[str]) -> str:
    """``decoder.layers.0, decoder.layers.2`` -> ``decoder 0 2``."""
    by_stack: dict[str, list[str]] = {}
    for group in groups:
        stack, _, index = group.rpartition('.')
        by_stack.setdefault(stack.removesuffix('.layers'), []).append(index)
    return ', '.join(f'{stack} {" ".join(indices)}' for stack, indices in by_stack.items())
