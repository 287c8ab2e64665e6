"""Draws the results of a run: AP of each class, AP curves, norms of the groups.

python tools/analysis_tools/plot_results.py WORK_DIR/forgetting.json [--out-dir DIR]
    [--protocol restricted]
"""

import argparse
from pathlib import Path

from mmforget.engine.results import atomic_file, read_results
from mmforget.visualization.figures import encode_png, figure_pixels
from mmforget.visualization.result_pictures import result_pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('results', type=Path, help='a forgetting.json, or the work dir it is in')
    parser.add_argument('--out-dir', type=Path, help="default: 'pictures' beside the file")
    parser.add_argument('--protocol', choices=('full', 'restricted'), default='full')
    args = parser.parse_args()
    path = args.results / 'forgetting.json' if args.results.is_dir() else args.results
    if not path.is_file():
        parser.error(f'{path} is no file; expected a forgetting.json, which every run writes.')
    try:
        figures = result_pictures(read_results(path), args.protocol)
    except ValueError as error:
        parser.error(str(error))
    if not figures:
        parser.error(f'{path} holds nothing to draw: no evaluation and no groups.')
    folder = args.out_dir or path.parent / 'pictures'
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with atomic_file(folder / f'{name}.png') as file:
            file.write(encode_png(figure_pixels(figure)))
        print(folder / f'{name}.png')


if __name__ == '__main__':
    main()
