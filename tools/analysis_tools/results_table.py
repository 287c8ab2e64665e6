"""Prints the table of methods that were run on the same tasks, and keeps those of the docs true.

    python tools/analysis_tools/results_table.py work_dirs/comparison/garments_continual
    python tools/analysis_tools/results_table.py work_dirs/mine work_dirs/yours   # forgetting runs
    python tools/analysis_tools/results_table.py --keep work_dirs/comparison/garments_continual
    python tools/analysis_tools/results_table.py --page docs/results.md   # writes its tables
    python tools/analysis_tools/results_table.py --page docs/results.md --check
    python tools/analysis_tools/results_table.py --page README.md   # the rows that stand there

A folder holds METHOD/seed_N/forgetting.json, or is a work dir of one run; references (oracle,
retrain, ...) of the same tasks that lie in a folder beside it are told as well. ``--keep`` copies
the results files to docs/results, from which the page is written. A page has the table of each
folder NAME in docs/results whose markers it holds: ``<!-- NAME: begin -->`` and ``<!-- NAME: end
-->`` for all of it, ``<!-- NAME excerpt: begin -->`` ... for the rows and columns that stand there.
"""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmforget.benchmarks.report import has_markers, page_text, write_page
from mmforget.engine.results import FILE_NAME, read_results
from mmforget.visualization.method_table import REFERENCES, method_table
from mmforget.visualization.tables import excerpt

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / 'docs' / 'results'


def runs_in(folders: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Name of a method -> its results, one for each seed.

    A name that stands in several folders is told with its folder.

    Raises:
        FileNotFoundError: A folder holds no results.
    """
    found = [own for folder in dict.fromkeys(folders) for own in _of_folder(folder)]
    times = Counter(name for _, name, _ in found)
    return {
        name if times[name] == 1 else f'{place}/{name}': documents
        for place, name, documents in found
    }


def _of_folder(folder: Path) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """What lies in a folder: where, name of the method, its results."""
    path = folder.resolve()
    if (path / FILE_NAME).is_file():
        return [(path.parent.name, path.name, [read_results(path / FILE_NAME)])]
    files = sorted(path.glob(f'*/seed_*/{FILE_NAME}'))
    if not files:
        raise FileNotFoundError(
            f'{folder} holds neither {FILE_NAME} nor METHOD/seed_N/{FILE_NAME}; expected a '
            'work dir of a forgetting run, or a folder of compare_methods.py.'
        )
    runs: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        runs.setdefault(file.parent.parent.name, []).append(read_results(file))
    return [(path.name, name, documents) for name, documents in runs.items()]


def table_of(folders: Sequence[Path], protocol: str = 'full') -> str:
    """The table of some folders; ablations are ordered by what is varied."""
    by_name = all(folder.name.startswith('ablation_') for folder in folders)
    runs = runs_in(folders)
    return method_table({**references_beside(folders, runs), **runs}, protocol, by_name)


def references_beside(
    folders: Sequence[Path], runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """References that lie in a folder beside these, on the same detector and data.

    An oracle serves all tasks that retain the same in the end; what has the runs' own budget must
    have their tasks, images and seed as well.
    """
    own = [document['run'] for documents in runs.values() for document in documents]
    found: dict[str, list[dict[str, Any]]] = {}
    for place in {folder.resolve().parent for folder in folders} if own else ():
        for name in REFERENCES:
            files = sorted(place.glob(f'*/{name}/*/{FILE_NAME}')) if name not in runs else []
            alike = _same_end if name == 'oracle' else _same_budget
            documents = [d for d in map(read_results, files) if alike(d['run'], own[0])]
            if documents:
                found[name] = documents
    return found


def _same_end(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    def key(run: Mapping[str, Any]) -> tuple[Any, ...]:
        forgotten = {name for classes in run['tasks'] for name in classes}
        return run.get('loaded_from'), run.get('measured_on'), forgotten

    return key(a) == key(b)


def _same_budget(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    keys = ('loaded_from', 'measured_on', 'tasks', 'max_steps', 'samplings', 'batch_sizes', 'seed')
    return all(a.get(key) == b.get(key) for key in keys)


def keep(folder: Path) -> None:
    """Copies the results files of finished runs to the docs."""
    for path in sorted(folder.glob(f'*/seed_*/{FILE_NAME}')):
        document = read_results(path)
        if len(document['tasks']) == len(document['run']['tasks']):
            target = KEPT / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            print(target)


def update(page: Path, check: bool) -> list[str]:
    """Writes the tables of a page.

    Args:
        page: Markdown with markers.
        check: Writes nothing.

    Returns:
        Names of the tables that are not as they would be written, if ``check``.

    Raises:
        ValueError: The page holds no table of docs/results.
    """
    stale, found = [], 0
    for folder in sorted(KEPT.glob('*')):
        for name in (folder.name, f'{folder.name} excerpt'):
            if not has_markers(page, name):
                continue
            found += 1
            text = table_of([folder])
            if name != folder.name:
                text = excerpt(text, page_text(page, name))
            if not check:
                write_page(page, text, name)
            elif page_text(page, name) != text:
                stale.append(name)
    if not found:
        raise ValueError(
            f'{page} holds the markers of no folder in {KEPT}; expected lines like '
            '<!-- NAME: begin --> and <!-- NAME: end -->.'
        )
    return stale


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
        stale = update(args.page, args.check) if args.page else []
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if stale:
        sys.exit(
            f'{args.page}: the tables {", ".join(stale)} are not those of docs/results. Write them '
            f'with: python tools/analysis_tools/results_table.py --page {args.page}'
        )


if __name__ == '__main__':
    main()
