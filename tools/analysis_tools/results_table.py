"""Prints the table of methods that were run on the same tasks, and keeps those of the docs true.

    python tools/analysis_tools/results_table.py work_dirs/comparison/garments_continual
    python tools/analysis_tools/results_table.py work_dirs/mine work_dirs/yours   # forgetting runs
    python tools/analysis_tools/results_table.py --keep work_dirs/comparison/garments_continual
    python tools/analysis_tools/results_table.py --page docs/results.md   # writes its tables
    python tools/analysis_tools/results_table.py --page docs/results.md --check

A folder holds METHOD/seed_N/forgetting.json, or is a work dir of one run. ``--keep`` copies the
results files to docs/results, from which the page is written.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmforget.benchmarks.report import page_text, write_page
from mmforget.engine.results import FILE_NAME, read_results
from mmforget.visualization.method_table import method_table

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / 'docs' / 'results'


def runs_in(folders: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Name of a method -> its results, one for each seed.

    Raises:
        FileNotFoundError: A folder holds no results.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            runs.setdefault(folder.name, []).append(read_results(folder / FILE_NAME))
            continue
        files = sorted(folder.glob(f'*/seed_*/{FILE_NAME}'))
        if not files:
            raise FileNotFoundError(
                f'{folder} holds neither {FILE_NAME} nor METHOD/seed_N/{FILE_NAME}; expected a '
                'work dir of a forgetting run, or a folder of compare_methods.py.'
            )
        for path in files:
            runs.setdefault(path.parent.parent.name, []).append(read_results(path))
    return runs


def table_of(folders: Sequence[Path], protocol: str = 'full') -> str:
    """The table of some folders; ablations are ordered by what is varied."""
    by_name = all(folder.name.startswith('ablation_') for folder in folders)
    return method_table(runs_in(folders), protocol, by_name)


def keep(folder: Path) -> None:
    """Copies the results files of finished runs to the docs."""
    for path in sorted(folder.glob(f'*/seed_*/{FILE_NAME}')):
        document = read_results(path)
        if len(document['tasks']) == len(document['run']['tasks']):
            target = KEPT / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', nargs='*', type=Path, help='what is told of')
    parser.add_argument('--protocol', choices=('full', 'restricted'), default='full')
    parser.add_argument('--keep', type=Path, help='a folder whose results go to docs/results')
    parser.add_argument('--page', type=Path, help='a page with markers, named as in docs/results')
    parser.add_argument('--check', action='store_true', help='the page must be as it would be')
    args = parser.parse_args()
    if not (args.folders or args.keep or args.page):
        parser.error('nothing to do: give folders, --keep or --page.')
    try:
        if args.folders:
            print(table_of(args.folders, args.protocol))
        if args.keep:
            keep(args.keep)
        stale = []
        for folder in sorted(KEPT.glob('*')) if args.page else ():
            text = table_of([folder])
            if not args.check:
                write_page(args.page, text, folder.name)
            elif page_text(args.page, folder.name) != text:
                stale.append(folder.name)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if stale:
        sys.exit(
            f'{args.page}: the tables {", ".join(stale)} are not those of docs/results. Write them '
            f'with: python tools/analysis_tools/results_table.py --page {args.page}'
        )


if __name__ == '__main__':
    main()
