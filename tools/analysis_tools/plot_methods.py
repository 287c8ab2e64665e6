"""Draws what compare_methods.py ran: trade-off, scores against tasks and steps, living groups.

    python tools/analysis_tools/plot_methods.py work_dirs/comparison/garments_continual \
        --out-dir docs/images/results
    python tools/analysis_tools/plot_methods.py work_dirs/comparison/ablation_sparsity_path

Curves against steps are drawn of the methods that ran with ForgettingCurvesHook.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mmforget.engine.hooks.curves import FILE_NAME as CURVES_FILE
from mmforget.engine.results import FILE_NAME, atomic_file, read_results
from mmforget.visualization.figures import encode_png, figure_pixels
from mmforget.visualization.method_figures import (
    sparsity_path,
    step_curves,
    task_curves,
    trade_off,
)
from mmforget.visualization.method_table import REFERENCES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='METHOD/seed_N/forgetting.json lie in it')
    parser.add_argument('--out-dir', type=Path, help="default: 'pictures' in the folder")
    parser.add_argument('--protocol', choices=('full', 'restricted'), default='full')
    args = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(args.folder.glob(f'*/seed_*/{FILE_NAME}')):
        document = read_results(path)
        if len(document['tasks']) == len(document['run']['tasks']):
            runs.setdefault(path.parent.parent.name, []).append(document)
    if not runs:
        parser.error(
            f'{args.folder} holds no finished METHOD/seed_N/{FILE_NAME}; expected a folder of '
            'compare_methods.py.'
        )
    curves = {
        path.parent.parent.name: json.loads(path.read_text())['points']
        for path in sorted(args.folder.glob(f'*/seed_*/{CURVES_FILE}'), reverse=True)
    }
    found = {n: n.removeprefix('strength-') for n in runs if n.startswith('strength-')}
    strengths = dict(sorted(found.items(), key=lambda pair: float(pair[1])))
    if strengths:
        figures = {'sparsity_path': sparsity_path(runs, strengths)}
    else:
        methods = {name: found for name, found in runs.items() if name not in REFERENCES}
        figures = {
            'trade_off': trade_off(methods, args.protocol),
            'against_tasks': task_curves(methods, args.protocol),
        }
        if curves:
            prefix = 'Acc' if 'Acc_f' in next(iter(curves.values()))[0]['full'] else 'AP'
            figures['against_steps'] = step_curves(dict(sorted(curves.items())), prefix)
    folder = args.out_dir or args.folder / 'pictures'
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = folder / f'{args.folder.name}_{name}.png'
        with atomic_file(path) as file:
            file.write(encode_png(figure_pixels(figure)))
        print(path)


if __name__ == '__main__':
    main()
