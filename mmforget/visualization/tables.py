"""Tables in plain text, drawn from results files alone."""

from collections.abc import Mapping, Sequence
from typing import Any

# {} is the measure: AP of a detector, Acc of a classifier.
DEMO_HEADER = (
    'run',
    'after task',
    'forgets',
    '{}_f',
    '{}_o',
    '{}_r',
    '{}_r relative',
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


def excerpt(table: str, like: str) -> str:
    """The rows and columns of a table that another one names, in its order.

    Args:
        table: As ``text_table`` writes it; text below it is left out.
        like: A table whose header and first cells say what is wanted; its other cells are ignored.

    Raises:
        ValueError: A row or column is wanted that the table lacks.
    """
    header, *rows = _cells(table)
    wanted, *names = _cells(like) or [[]]
    known = {row[0]: row for row in rows}
    missing = [name for name in wanted if name not in header]
    missing += [row[0] for row in names if row[0] not in known]
    if missing or not names:
        raise ValueError(
            f'An excerpt wants {", ".join(missing) or "no row"}; expected columns out of '
            f'{", ".join(header)} and rows out of {", ".join(known)}.'
        )
    places = [header.index(name) for name in wanted]
    return text_table(wanted, [[known[row[0]][place] for place in places] for row in names])


def _cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith('|')]
    rows = [[cell.strip() for cell in line.strip().strip('|').split('|')] for line in lines]
    return [row for row in rows if set(''.join(row)) - set('-: ') or not set(''.join(row))]


def demo_table(results: Mapping[str, Mapping[str, Any]], protocol: str = 'full') -> str:
    """One line per run and task, metrics on the full validation set, then the loaded model.

    What was not measured is a dash. A classifier has accuracies in the place of AP.

    Args:
        results: Name of a run -> content of its ``forgetting.json``.
        protocol: ``'full'`` or ``'restricted'``.
    """
    first = next(iter(results.values()))
    classifier = any('Acc_f' in row[protocol] for row in first['tasks'])
    measure = 'Acc' if classifier else 'AP'
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
                    _number(scores.get(f'{measure}_f')),
                    _number(scores.get(f'{measure}_o')),
                    _number(scores.get(f'{measure}_r')),
                    _number(scores.get(f'{measure}_r_relative')),
                    _number(_ratio(scores.get('H'), scores.get('H_ceiling'))),
                    f'{len(living)}/{len(row["groups"])}: {_short(living)}',
                    f'{100 * row["trainable_share"]:.2f} %',
                    f'{row["seconds"]:.0f}',
                ]
            )
    slots = [norm for row in first['tasks'] for norm in row['groups'].values()]
    dead = sum(norm == 0 for norm in slots)
    kind = 'classifier' if classifier else 'detector'
    base = first['base'].get('full', {})
    loaded = ', '.join(
        f'{name} {_number(base.get(name))}' for name in (('Acc',) if classifier else ('AP', 'AP50'))
    )
    return '\n'.join(
        [
            text_table([column.format(measure) for column in DEMO_HEADER], rows),
            '',
            f'Loaded {kind}: {loaded} on all classes. Relative: {measure}_r to the loaded {kind} '
            f'on the same classes, H to its ceiling ({measure}_f = 0, {measure}_r unchanged).',
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
