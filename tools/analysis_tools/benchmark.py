"""Measures mmforget beside the recipe as its authors run it, peft, and full fine-tuning.

    python tools/analysis_tools/benchmark.py --page docs/benchmarks.md
    python tools/analysis_tools/benchmark.py --levels ffn garments
    python tools/analysis_tools/benchmark.py --quick --levels ffn     # tests the command

Everything takes hours on two cores, most of them in R0's whole runs. Each finished table is
printed and kept in the JSON file; --keep goes on from there with further levels. A CUDA device is
used where torch sees one; CUDA_VISIBLE_DEVICES= in front of the command hides it.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

from mmforget.benchmarks.levels import LEVELS, RateBook, measure_case
from mmforget.benchmarks.machine import describe
from mmforget.benchmarks.measurement import Settings
from mmforget.benchmarks.report import Report, markdown, read_report, table_text, write_page
from mmforget.engine.host_memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--levels', nargs='+', choices=LEVELS, default=list(LEVELS))
    parser.add_argument('--quick', action='store_true', help='small sizes, 2 repetitions')
    parser.add_argument('--repetitions', type=int, help='default: 5, quick: 2')
    parser.add_argument('--threads', type=int, help="default: torch's")
    parser.add_argument(
        '--no-memory', action='store_true', help='no peak memory: no fresh processes'
    )
    parser.add_argument(
        '--json', type=Path, default=Path('work_dirs/benchmark/benchmark.json'), help='%(default)s'
    )
    parser.add_argument('--keep', action='store_true', help="keep the JSON file's other levels")
    parser.add_argument('--page', type=Path, help='a Markdown page with markers for the tables')
    parser.add_argument('--scratch', type=Path, help='folder for files made on the way')
    args = parser.parse_args()
    if args.repetitions is not None and args.repetitions < 1:
        parser.error(f'--repetitions is {args.repetitions}; expected at least 1.')
    if args.page and not args.quick and (args.repetitions or 5) < 5:
        parser.error(f'--repetitions is {args.repetitions}; a page tells of medians of at least 5.')
    if args.threads is not None and args.threads < 1:
        parser.error(f'--threads is {args.threads}; expected at least 1.')
    return args


def begin_report(args: argparse.Namespace, device: str) -> Report:
    """A new report, or with --keep the one on disk less what is measured now."""
    report = Report(describe(device), args.quick)
    if not args.keep or not args.json.is_file():
        return report
    kept = read_report(args.json)
    if (kept.machine, kept.quick) != (report.machine, report.quick):
        sys.exit(
            f'{args.json} was measured on {kept.machine} (quick: {kept.quick}), this is '
            f'{report.machine} (quick: {report.quick}): figures of both do not go into one table. '
            'Leave --keep out, or give another file with --json.'
        )
    kept.tables = [table for table in kept.tables if table.level not in args.levels]
    return kept


def measure(args: argparse.Namespace, scratch: str) -> Report:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cpu':  # As the loop does in its runs, but from the start, for R0 as well.
        keep_freed_memory()
    report = begin_report(args, device)
    settings = Settings(
        configs=str(ROOT / 'configs'),
        scratch=scratch,
        device=device,
        quick=args.quick,
        repetitions=args.repetitions or (2 if args.quick else 5),
        memory=not args.no_memory,
    )
    rates = RateBook(settings)
    for level in args.levels:
        for case in LEVELS[level](settings):
            print(f'{level}: {case.title} ...', file=sys.stderr, flush=True)
            table = measure_case(case, settings, rates)
            report.tables.append(table)
            report.rates |= {dtype: asdict(found) for dtype, found in rates.rates.items()}
            report.write(args.json)
            print(f'\n{table_text(table)}', flush=True)
    order = list(LEVELS)
    report.tables.sort(key=lambda table: order.index(table.level))
    report.write(args.json)
    return report


def main() -> None:
    args = parse()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.scratch is not None:
        args.scratch.mkdir(parents=True, exist_ok=True)
        report = measure(args, str(args.scratch.resolve()))
    else:
        with tempfile.TemporaryDirectory(prefix='mmforget_benchmark_') as scratch:
            report = measure(args, scratch)
    if args.page is not None:
        write_page(args.page, markdown(report))
    for target in report.targets():
        value = 'not measured' if target['measured'] is None else f'{target["measured"]:.3g}'
        print(
            f'{"reached" if target["reached"] else "MISSED"}: {target["level"]}, '
            f'{target["variant"]}, {target["quantity"]}: {value}'
            + (f' of {target["by"]}' if target['by'] else '')
            + f', at most {target["at_most"]:g}'
        )
    print(f'Everything is in {args.json}.')
    failed = [f'{t.title}, {r.variant}' for t in report.tables for r in t.rows if r.error]
    if failed:
        sys.exit(f'Not everything could be measured: {"; ".join(failed)}.')


if __name__ == '__main__':
    main()
