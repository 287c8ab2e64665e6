"""Attacks a detector that has forgotten classes: how deep does forgetting go?

python tools/attack.py CONFIG FORGOTTEN --attack relearn --classes bag sneaker

relearn trains fresh low-rank adapters on labelled images of the forgotten classes and prints AP_f
against steps. CONFIG is what the detector was trained with. Give the loaded detector, or one that
never saw the classes, as FORGOTTEN to compare.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmforget.attacks import Relearn
from mmforget.engine.results import write_atomically
from mmforget.visualization.tables import text_table


def parse_args() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', help='the config the detector was trained with')
    add('forgotten', help='the checkpoint of the detector that has forgotten')
    add('--attack', choices=['relearn'], required=True)
    add('--classes', nargs='+', required=True, metavar='NAME', help='what it has forgotten')
    add('--images', type=int, default=64, help='labelled images (%(default)s)')
    add('--steps', type=int, nargs='+', default=[0, 10, 20, 40], help='where AP is measured')
    add('--learning-rate', type=float, default=Relearn.learning_rate, help='%(default)s')
    add('--seed', type=int, default=Relearn.seed, help='%(default)s')
    add('--data-root', help="replaces the config's data root")
    add('--json', type=Path, help='writes the points to a file, too')
    return parser, parser.parse_args()


def main() -> None:
    parser, args = parse_args()
    try:
        attack = Relearn(
            args.images, tuple(args.steps), learning_rate=args.learning_rate, seed=args.seed
        )
        points = attack.run(args.config, args.forgotten, args.classes, args.data_root)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    rows = [[str(p.steps), *(_text(value) for value in (p.AP_f, p.AP_r))] for p in points]
    print(text_table(['steps of relearning', 'AP_f', 'AP_r'], rows))
    if args.json is not None:
        content = {'attack': asdict(attack), 'points': [asdict(point) for point in points]}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(args.json, json.dumps(content, indent=2) + '\n')


def _text(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


if __name__ == '__main__':
    main()
