"""One table of many methods on the same tasks, drawn from their results files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from mmforget.evaluation.forgetting_scores import scored_sets
from mmforget.structures import ForgettingScenario, ForgettingTask
from mmforget.visualization.tables import text_table

#: Runs that are no methods but say what to compare with, in the order in which they stand.
REFERENCES = ('oracle', 'retrain', 'retain-only', 'random-drop')
_KINDS = {
    'ranking': 'the ranking of groups',
    'trials': 'trials of groups',
    'measurement': 'importances or prototypes',
}
Documents = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass
class MethodScores:
    """What the seeds of one method reached, task by task.

    Attributes:
        name: Of the method.
        tasks: For each task score -> one value for each seed; empty where it was not measured.
        trainable_share: Of the model's weights.
        seconds: Of all tasks, for each seed.
        groups: Living groups on average and all of them; ``None`` where there are none.
    """

    name: str
    tasks: list[dict[str, list[float]]]
    trainable_share: float
    seconds: list[float]
    groups: tuple[float, int] | None = None

    def mean_h(self) -> float:
        """H over tasks and seeds, by which methods are ordered."""
        values = [value for task in self.tasks for value in task.get('H', [])]
        return mean(values) if values else 0.0


def method_table(runs: Documents, protocol: str = 'full', by_name: bool = False) -> str:
    """Reference rows, then the methods by their mean H; means over seeds ± standard deviation.

    Args:
        runs: Name of a method -> contents of its ``forgetting.json``, one for each seed. A run
            named ``oracle`` may have all requests in one task; it is compared with the last one.
        protocol: ``'full'`` or ``'restricted'``.
        by_name: Orders by name, numbers in it by their size, instead.

    Raises:
        ValueError: There is no finished run, or the runs have different tasks.
    """
    done = {name: [d for d in found if _finished(d)] for name, found in runs.items()}
    done = {name: found for name, found in done.items() if found}
    first = next((found[0] for name, found in done.items() if name != 'oracle'), None)
    if first is None:
        raise ValueError('There is no finished run to tell of; expected runs with all their tasks.')
    tasks = tasks_of(first)
    prefix = 'Acc' if 'Acc_f' in first['tasks'][0][protocol] else 'AP'
    names = [
        f'{prefix}_f',
        f'{prefix}_o',
        f'{prefix}_r',
        *([f'{prefix}_m'] if tasks[0].missing else []),
        'H',
    ]
    for name, found in done.items():
        _check_same_run(name, found)
    scores = {name: _scores(name, found, tasks, names, protocol) for name, found in done.items()}
    oracle = scores['oracle'].tasks[-1].get(f'{prefix}_r', []) if 'oracle' in scores else []
    columns = [
        (place, name)
        for place in range(len(tasks))
        for name in names
        if place or name != f'{prefix}_o'
    ]
    header = ['method', *(f'{place + 1}: {name}' for place, name in columns)]
    header += [f'{prefix}_r / oracle', 'living groups', 'trainable', 'seconds']
    kind = 'classifier' if prefix == 'Acc' else 'detector'
    of_same_tasks = [d for name, found in done.items() if name != 'oracle' for d in found]
    references = _loaded(of_same_tasks, tasks, names, protocol)
    rows = [_row(one, columns, '', '-') for one in (_named(f'loaded {kind}', references[0]),)] + [
        _row(_named('ceiling of H', references[1]), columns, '', '-')
    ]
    named = [scores[name] for name in REFERENCES if name in scores]
    others = [one for name, one in scores.items() if name not in REFERENCES]
    others.sort(key=lambda one: _by_numbers(one.name) if by_name else -one.mean_h())
    for one in [*named, *others]:
        last = one.tasks[-1].get(f'{prefix}_r', [])
        relative = f'{mean(last) / mean(oracle):.3f}' if last and oracle and mean(oracle) else '-'
        rows.append(_row(one, columns, f'{100 * one.trainable_share:.2f} %', relative))
    return '\n\n'.join([text_table(header, rows), _budget(done, tasks)])


def tasks_of(document: Mapping[str, Any]) -> tuple[ForgettingTask, ...]:
    """The tasks of a run, by its results file."""
    classes = list(document['tasks'][0]['per_class'])
    missing = document['run'].get('missing', ())
    requests = [row['classes'] for row in document['tasks']]
    return ForgettingScenario.from_requests(requests, classes, missing).tasks


def _finished(document: Mapping[str, Any]) -> bool:
    return len(document['tasks']) == len(document['run']['tasks'])


def _scores(
    name: str,
    documents: Sequence[Mapping[str, Any]],
    tasks: Sequence[ForgettingTask],
    names: Sequence[str],
    protocol: str,
) -> MethodScores:
    found: list[dict[str, list[float]]] = [{} for _ in tasks]
    for document in documents:
        own = tasks_of(document)
        if name == 'oracle' and own != tuple(tasks):
            _check_same_end(own[-1], tasks[-1])
            last = _of_classes(document, tasks[-1], protocol)
            _add(found[-1], last, names)
            continue
        if own != tuple(tasks):
            raise ValueError(
                f'{name} has the tasks {[t.classes for t in own]}, others have '
                f'{[t.classes for t in tasks]}; only runs of the same tasks can be compared.'
            )
        for place, row in enumerate(document['tasks']):
            _add(found[place], row[protocol], names)
    share = documents[0]['tasks'][0]['trainable_share']
    seconds = [sum(row['seconds'] for row in document['tasks']) for document in documents]
    groups = [row['groups'] for document in documents for row in document['tasks']]
    living = None
    if all(groups):
        living = mean(sum(norm > 0 for norm in own.values()) for own in groups), len(groups[0])
    return MethodScores(name, found, share, seconds, living)


def _check_same_end(own: ForgettingTask, task: ForgettingTask) -> None:
    if set(own.retained) != set(task.retained):
        raise ValueError(
            f'The oracle retains {", ".join(own.retained)}, the others in the end '
            f'{", ".join(task.retained)}; train it on their retain set.'
        )


def _of_classes(
    document: Mapping[str, Any], task: ForgettingTask, protocol: str
) -> dict[str, float | None]:
    """Scores of a task's sets out of a run that has forgotten them in another order.

    Of the restricted protocol nothing is known: each set there has images of its own.
    """
    if protocol != 'full':
        return {}
    per_class = {name: now for name, (_, now) in document['tasks'][-1]['per_class'].items()}
    images = document['base'].get('images')  # A classifier's: accuracy is that of all images.
    prefix = 'AP' if images is None else 'Acc'
    return {
        f'{prefix}_{letter}': _mean(names, per_class, images)
        for letter, names in scored_sets(task).items()
    }


def _mean(
    names: Sequence[str], per_class: Mapping[str, float | None], weights: Mapping[str, int] | None
) -> float | None:
    """Mean over classes, ``None`` where there is nothing to take it of."""
    known = [name for name in names if per_class[name] is not None]
    shares = [1 if weights is None else weights[name] for name in known]
    if not sum(shares):
        return None
    return sum(s * per_class[n] for n, s in zip(known, shares, strict=True)) / sum(shares)


def _check_same_run(name: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """Raises where what is taken for seeds of one method differs in more than the seed."""
    known = documents[0]['run']
    for document in documents[1:]:
        own = document['run']
        for key in sorted((known.keys() | own.keys()) - {'seed', 'mmforget'}):
            if known.get(key) != own.get(key):
                raise ValueError(
                    f'Two runs named {name} have {key}={known.get(key)!r} and {own.get(key)!r}; '
                    'expected runs that differ in their seed alone. Compare them by folders of '
                    'their own names.'
                )
    seeds = [document['run']['seed'] for document in documents]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f'{name} has the seeds {", ".join(map(str, sorted(seeds)))}; expected one run of each.'
        )


def _add(
    found: dict[str, list[float]], scores: Mapping[str, float | None], names: Sequence[str]
) -> None:
    for name in names:
        value = scores.get(name)
        if value is not None:
            found.setdefault(name, []).append(value)


def _loaded(
    documents: Sequence[Mapping[str, Any]],
    tasks: Sequence[ForgettingTask],
    names: Sequence[str],
    protocol: str,
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The loaded model's scores and those at which H is highest, for each task."""
    loaded, ceiling = [], []
    images = documents[0]['base'].get('images')
    for place, task in enumerate(tasks):
        row = documents[0]['tasks'][place]
        before = row[protocol]
        base_f = _sum(before['drop'], before[names[0]])
        # A method that has lost all of the retained classes tells nothing of what they were.
        kept = (document['tasks'][place][protocol] for document in documents)
        shares = (_divided(own[_relative(names)], own[names[2]]) for own in kept)
        base_r = next((share for share in shares if share is not None), None)
        loaded.append({names[0]: base_f, names[2]: base_r})
        if protocol == 'full':
            per_class = {name: known for name, (known, _) in row['per_class'].items()}
            for letter in 'om':
                base = _mean(scored_sets(task)[letter], per_class, images)
                loaded[-1][names[0][:-1] + letter] = base
        ceiling.append({names[0]: 0.0, names[1]: 0.0, names[2]: base_r, 'H': before['H_ceiling']})
    return loaded, ceiling


def _relative(names: Sequence[str]) -> str:
    return f'{names[2]}_relative'


def _divided(relative: float | None, value: float | None) -> float | None:
    return None if not relative or value is None else value / relative


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _named(name: str, tasks: Sequence[Mapping[str, float | None]]) -> MethodScores:
    lists = [{k: [v] for k, v in task.items() if v is not None} for task in tasks]
    return MethodScores(name, lists, 0.0, [])


def _row(
    scores: MethodScores, columns: Sequence[tuple[int, str]], trainable: str, relative: str
) -> list[str]:
    cells = [_cell(scores.tasks[place].get(name, [])) for place, name in columns]
    seconds = f'{mean(scores.seconds):.0f}' if scores.seconds else '-'
    groups = '-' if scores.groups is None else f'{scores.groups[0]:.3g}/{scores.groups[1]}'
    return [scores.name, *cells, relative, groups, trainable or '-', seconds]


def _by_numbers(name: str) -> list[tuple[float, str]]:
    """A key by which rank-2 comes before rank-16."""
    parts = re.split(r'(\d+(?:\.\d+)?(?:e-?\d+)?)', name)
    return [(float(part), '') if place % 2 else (0.0, part) for place, part in enumerate(parts)]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    spread = f' ± {stdev(values):.3f}' if len(values) > 1 else ''
    return f'{mean(values):.3f}{spread}'


def _budget(runs: Documents, tasks: Sequence[ForgettingTask]) -> str:
    """What every method had, or in what they differ."""
    budgets: dict[str, list[str]] = {}
    for name, documents in runs.items():
        budgets.setdefault(_budget_of(documents), []).append(name)
    most = max(budgets, key=lambda text: len(budgets[text]))
    forgotten = '; '.join(', '.join(task.classes) for task in tasks)
    lines = [
        f'Tasks: {forgotten}. {_split(runs)}{_seeds(runs)} Budget by task: {most}; '
        'seconds are those of all tasks, evaluation left out.'
    ]
    lines += [f'{", ".join(owners)}: {text}.' for text, owners in budgets.items() if text != most]
    return ' '.join([*lines, *_before(runs)])


def _budget_of(documents: Sequence[Mapping[str, Any]]) -> str:
    """Steps and images of one method's tasks; a range where its seeds drew different numbers."""
    rows = documents[0]['tasks']
    steps = ', '.join(str(row['steps']) for row in rows)
    sizes = documents[0]['run']['batch_sizes']
    images = '; '.join(
        ' + '.join(
            _range([document['tasks'][place]['images'][stream] for document in documents])
            for stream in ('forget', 'retain')
        )
        for place in range(len(rows))
    )
    return (
        f'{steps} steps of {sizes["forget"]} + {sizes["retain"]} images, drawn from {images} '
        '(forget + retain)'
    )


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f'{low} to {high}'


def _split(runs: Documents) -> str:
    """Where it was measured, as far as the results files know."""
    data = [
        d['run'].get('measured_on', {}).get('data', {}) for found in runs.values() for d in found
    ]
    splits = {own.get('split') or own.get('ann_file') for own in data} - {None}
    return f'Measured on {", ".join(sorted(splits))}. ' if splits else ''


def _seeds(runs: Documents) -> str:
    """Of all methods, or which has which."""
    owners: dict[tuple[int, ...], list[str]] = {}
    for name, documents in runs.items():
        seeds = tuple(sorted(document['run']['seed'] for document in documents))
        owners.setdefault(seeds, []).append(name)
    most = max(owners, key=lambda seeds: len(owners[seeds]))
    others = (
        f'; of {", ".join(names)} {", ".join(map(str, seeds))}'
        for seeds, names in owners.items()
        if seeds != most
    )
    return f'Seeds: {", ".join(map(str, most))}{"".join(others)}.'


def _before(runs: Documents) -> list[str]:
    """What some methods run through the network beyond the budget, before a task's first step."""
    owners: dict[str, list[str]] = {}
    for name, documents in runs.items():
        kinds = [row.get('batches_before', {}) for row in documents[0]['tasks']]
        for kind in sorted(set().union(*kinds)):
            numbers = ', '.join(str(own.get(kind, 0)) for own in kinds)
            owners.setdefault(f'{numbers} batches for {_KINDS[kind]}', []).append(name)
    return [
        f'Besides, {", ".join(names)} {"run" if len(names) > 1 else "runs"} {text}.'
        for text, names in owners.items()
    ]
