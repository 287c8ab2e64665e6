"""Makes the Garments benchmark ahead of its first use.

python tools/dataset_converters/garments.py --root data/garments
"""

import argparse
import json
import time
from pathlib import Path

from mmforget.datasets.garments_scenes import SPLIT_SIZES, prepare_garments, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--root', default='data/garments')
    parser.add_argument('--splits', nargs='+', default=list(SPLIT_SIZES), choices=SPLIT_SIZES)
    parser.add_argument(
        '--write-checksums',
        type=Path,
        help='for maintainers: write the checksums of a new version here instead of checking',
    )
    args = parser.parse_args()
    start = time.perf_counter()
    made = prepare_garments(args.root, tuple(args.splits), verify=args.write_checksums is None)
    for split in args.splits:
        state = made.get(split, 'already there')
        print(f'{args.root}/{split}: {SPLIT_SIZES[split]} scenes, {state}')
    print(f'{time.perf_counter() - start:.1f} s')
    if args.write_checksums is not None:
        document = {'versions': versions(), 'splits': made}
        args.write_checksums.write_text(json.dumps(document, indent=2) + '\n')


if __name__ == '__main__':
    main()
