"""Makes a trained detector forget classes: one command, no config to write.

python tools/forget.py CONFIG CHECKPOINT --classes bag sneaker --out forgotten.pth

Repeat --classes for several requests in a row (one task each), or give --request FILE. CONFIG is
what the detector was trained with: a path, mmdet::folder/name.py, or a dumped config in a work dir.
"""

import argparse

from mmengine.config import DictAction

from mmforget.apis import prepare


def parse_args() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='the config the detector was trained with')
    add('checkpoint', help='its checkpoint: a path, a URL or mmforget://NAME')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        '--classes',
        nargs='+',
        action='append',
        metavar='NAME',
        help='what to forget; give it again for a further task',
    )
    which.add_argument('--request', metavar='FILE', help='JSON or YAML with tasks and settings')
    add('--out', required=True, help='where the plain detector is written')
    add('--overwrite', action='store_true', help='replace --out and the run in the work dir')
    add('--resume', action='store_true', help='go on with the run in the work dir')
    add('--dry-run', action='store_true', help='say what would be done, and how long it takes')
    add('--data-root', help="replaces the config's data root")
    add('--work-dir', help='default: NAME_work_dir beside --out NAME.pth')
    add('--steps', type=int, help='optimiser steps per task (80 or 400, by family)')
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        '--retain-images',
        type=int,
        metavar='N',
        help='retain stream: N images (400 or 2,000, by family)',
    )
    size.add_argument('--retain-ratio', type=float, metavar='R', help='or a share of them')
    size.add_argument('--few-shot', type=int, metavar='K', help='or K of each class, both streams')
    add('--seed', type=int, help='decides every random draw (42)')
    add('--traceback', action='store_true', help='show where an error was raised')
    add('--no-evaluation', action='store_true', help='measure nothing')
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='merged into the forgetting config, as in tools/train.py',
    )
    return parser, parser.parse_args()


def main() -> None:
    parser, args = parse_args()
    settings = vars(args)
    dry_run = settings.pop('dry_run')
    traceback = settings.pop('traceback')
    settings['evaluate'] = not settings.pop('no_evaluation')
    try:
        prepared = prepare(**settings)
        print(prepared.plan() if dry_run else prepared.forget())
    except (ValueError, OSError, FloatingPointError) as error:
        if traceback:
            raise
        parser.error(f'{error} (--traceback shows where it was raised)')


if __name__ == '__main__':
    main()
