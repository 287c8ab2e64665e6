"""Writes the table of detector families in docs/detectors.md: each is built, injected and checked.

python tools/analysis_tools/detector_table.py --page docs/detectors.md
"""

import argparse
from pathlib import Path

from mmforget.benchmarks.report import write_page
from mmforget.testing.families import FAMILIES, FamilyRow, check_family

_HEAD = (
    '| family | built from | read by | `targets` | groups | layers | trainable | share | output '
    'unchanged | step | merged |'
)


def row_text(row: FamilyRow) -> str:
    """A row of the table."""
    marks = (
        'yes' if mark else 'NO' for mark in (row.same_output, row.finite_step, row.same_merged)
    )
    return (
        f'| {row.family} | {FAMILIES[row.family].title} | {row.tap} | `{row.targets}` | '
        f'{row.groups} | {row.layers} | {row.trainable:,} | '
        f'{100 * row.share:.2f} % | {" | ".join(marks)} |'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--page', type=Path, help='a Markdown page with markers for the table')
    parser.add_argument('--families', nargs='+', choices=FAMILIES, default=list(FAMILIES))
    args = parser.parse_args()
    lines = [_HEAD, '|' + ' --- |' * (_HEAD.count('|') - 1)]
    for name in args.families:
        lines.append(row_text(check_family(name)))
        print(lines[-1], flush=True)
    if args.page is not None:
        write_page(args.page, '\n'.join(lines), 'families')


if __name__ == '__main__':
    main()
