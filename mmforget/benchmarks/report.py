"""Measured tables as JSON, and as Markdown between the markers of a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmforget.benchmarks.measurement import Measurement, Table
from mmforget.benchmarks.targets import TARGETS, measured
from mmforget.engine.results import write_atomically
from mmforget.visualization.tables import text_table

SCHEMA = 1
BEGIN, END = '<!-- benchmarks: begin -->', '<!-- benchmarks: end -->'
_DASH = '-'


@dataclass
class Report:
    """All that was measured on one machine.

    Attributes:
        machine: What ``machine.describe`` says.
        quick: Whether sizes were small: such figures say nothing.
        rates: Dtype -> what the machine multiplies and moves in a second.
        tables: In the order of measurement.
    """

    machine: dict[str, Any]
    quick: bool
    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def targets(self) -> list[dict[str, Any]]:
        """Every target of the levels that were measured; ``None`` where one is missing."""
        levels = {table.level for table in self.tables}
        found = []
        for target in TARGETS:
            if target.level in levels:
                value = measured(target, self.tables)
                reached = value is not None and value <= target.at_most
                found.append({**vars(target), 'measured': value, 'reached': reached})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            'schema': SCHEMA,
            'machine': self.machine,
            'quick': self.quick,
            'rates': self.rates,
            'tables': [table.to_dict() for table in self.tables],
            'targets': self.targets(),
        }

    def write(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + '\n')


def read_report(path: Path) -> Report:
    """The inverse of ``Report.write``.

    Raises:
        ValueError: The file is of another schema.
    """
    content = json.loads(path.read_text())
    if content.get('schema') != SCHEMA:
        raise ValueError(
            f'{path} has the schema {content.get("schema")!r}, expected {SCHEMA}. Give another '
            'file with --json, or remove this one.'
        )
    tables = [Table.from_dict(table) for table in content['tables']]
    return Report(content['machine'], content['quick'], content['rates'], tables)


def markdown(report: Report) -> str:
    """The report as it stands in docs/benchmarks.md."""
    parts = [_machine_text(report)]
    if report.quick:
        parts.append('**Quick sizes: these figures test the command and say nothing.**')
    targets = report.targets()
    if targets:
        parts += ['## Targets', _targets_table(targets)]
    level = None
    for table in report.tables:
        if table.level != level:
            level = table.level
            parts.append(f'## Level `{level}`')
        parts.append(table_text(table))
    return '\n\n'.join(parts)


def table_text(table: Table) -> str:
    """One table with its title and note."""
    extra = list(dict.fromkeys(key for row in table.rows for key in row.details))
    header = ['variant', 'median s', 'range s', 'ratio', 'peak MB', 'cache MB', 'trainable', *extra]
    rows = [_cells(row, extra) for row in table.rows]
    lines = [
        f'### {table.title[:1].upper()}{table.title[1:]}',
        text_table(header, rows),
        f'Median of {table.repetitions}; ratio to {table.reference}.'
        + (f' {table.note}' if table.note else ''),
    ]
    lines += [
        f'{row.variant} could not be measured: {row.error}' for row in table.rows if row.error
    ]
    return '\n\n'.join(lines)


def write_page(path: Path, text: str, name: str = 'benchmarks') -> None:
    """Puts the text between the markers of a page, which is made where there is none.

    Args:
        path: The page.
        text: What goes there.
        name: Of the markers, ``<!-- name: begin -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: The page lacks the markers.
    """
    begins, ends = _markers(name)
    before, _, after = _at_markers(path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f'{before}{begins}\n\n{text}\n\n{ends}{after}')


def has_markers(path: Path, name: str) -> bool:
    """Whether a page has a place of this name."""
    return all(marker in path.read_text() for marker in _markers(name))


def page_text(path: Path, name: str) -> str:
    """What stands between the markers of a page.

    Raises:
        ValueError: The page lacks the markers.
    """
    return _at_markers(path, name)[1].strip()


def _markers(name: str) -> tuple[str, str]:
    return f'<!-- {name}: begin -->', f'<!-- {name}: end -->'


def _at_markers(path: Path, name: str) -> tuple[str, str, str]:
    """What comes before the first marker, between the two, and after the second."""
    begins, ends = _markers(name)
    page = f'# {name.capitalize()}\n\n{begins}\n{ends}\n'
    page = path.read_text() if path.is_file() else page
    before, begin, rest = page.partition(begins)
    between, end, after = rest.partition(ends)
    if not begin or not end:
        raise ValueError(
            f'{path} lacks the lines {begins} and {ends}, between which the tables go. Add them, '
            'or give another page with --page.'
        )
    return before, between, after


def _machine_text(report: Report) -> str:
    machine = report.machine
    text = (
        f'{machine["processor"]}, {machine["cores"]} cores, {machine["threads"]} threads, '
        f'{machine["memory_gb"]} GB; Python {machine["python"]}, torch {machine["torch"]}, mmcv '
        f'{machine["mmcv"]}, mmdet {machine["mmdet"]}, loralib {machine["loralib"]}, peft '
        f'{machine["peft"]}, faster-coco-eval {machine["faster-coco-eval"]}. '
    )
    if machine['device'] == 'cpu':
        text += (
            'No CUDA device was at hand, so half precision and R50 at 800×1333 were not measured; '
            'where there is one, the same command measures them.'
        )
    else:
        text += f'CUDA device: {machine["device"]}.'
    for dtype, rates in report.rates.items():
        moved = ', '.join(
            f'{float(rate) / 1e9:.0f} GB/s ({int(size) / 2**20:g} MB)'
            for size, rate in rates['bandwidth'].items()
        )
        text += f'\n\nMeasured rates, {dtype}: {rates["flops"] / 1e9:.0f} GFLOP/s, {moved}.'
    return text


def _targets_table(targets: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            t['level'],
            t['title'] or _DASH,
            f'{t["variant"]}, {t["quantity"].replace("_", " ")}'
            + (f' by {t["by"]}' if t['by'] else ''),
            f'{t["at_most"]:g}',
            _DASH if t['measured'] is None else f'{t["measured"]:.3g}',
            'yes' if t['reached'] else 'no',
        ]
        for t in targets
    ]
    return text_table(['level', 'case', 'what', 'at most', 'measured', 'reached'], rows)


def _cells(row: Measurement, extra: Sequence[str]) -> list[str]:
    spread = _DASH
    if row.fastest is not None and row.slowest is not None:
        spread = f'{row.fastest:.3g} to {row.slowest:.3g}'
    return [
        row.variant,
        _number(row.seconds),
        spread,
        _number(row.ratio),
        _megabytes(row.peak_memory),
        _megabytes(row.cache_bytes),
        _DASH if row.trainable is None else f'{row.trainable:,}',
        *(_number(row.details.get(key)) for key in extra),
    ]


def _megabytes(size: int | None) -> str:
    return _DASH if size is None else f'{size / 2**20:,.1f}'


def _number(value: float | int | str | None) -> str:
    if value is None:
        return _DASH
    if isinstance(value, float):
        return f'{value:.4g}'
    return f'{value:,}' if isinstance(value, int) else value
