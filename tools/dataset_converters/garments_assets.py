"""Makes the package data of the Garments benchmark: sprites and backgrounds.

Needed only to make the shipped files again. Sources, none of them downloaded here:

* Fashion-MNIST, the four official files (Debian: ``apt install dataset-fashion-mnist``).
* Photographs inside the wheels of scikit-image and scikit-learn
  (``pip install scikit-image==0.26.0 scikit-learn==1.9.1``).

    python tools/dataset_converters/garments_assets.py \
        --fashion-mnist /usr/share/datasets/fashion-mnist --out mmforget/datasets/data
"""

import argparse
import gzip
import importlib.util
from pathlib import Path

import cv2
import numpy as np

SPRITES_PER_CLASS = {'train': 400, 'val': 50, 'test': 100}
BACKGROUNDS = {
    'train': {
        'china': ('sklearn', 'datasets/images/china.jpg'),
        'coffee': ('skimage', 'data/coffee.png'),
        'rocket': ('skimage', 'data/rocket.jpg'),
        'motorcycle': ('skimage', 'data/motorcycle_left.png'),
        'gravel': ('skimage', 'data/gravel.png'),
        'astronaut': ('skimage', 'data/astronaut.png'),
    },
    'test': {
        'flower': ('sklearn', 'datasets/images/flower.jpg'),
        'chelsea': ('skimage', 'data/chelsea.png'),
        'grass': ('skimage', 'data/grass.png'),
        'brick': ('skimage', 'data/brick.png'),
        'ihc': ('skimage', 'data/ihc.png'),
    },
}
BACKGROUND_SHORT_SIDE = 240


def read_idx(path: Path) -> np.ndarray:
    """Reads one gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    dims = raw[3]
    shape = np.frombuffer(raw, '>i4', dims, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def make_sprites(folder: Path) -> dict[str, np.ndarray]:
    """The first sprites of every class; val and test come from the official test file."""
    arrays = {}
    for official, splits in (('train', ('train',)), ('t10k', ('val', 'test'))):
        images = read_idx(folder / f'{official}-images-idx3-ubyte.gz')
        labels = read_idx(folder / f'{official}-labels-idx1-ubyte.gz')
        start = 0
        for split in splits:
            stop = start + SPRITES_PER_CLASS[split]
            arrays[split] = np.stack([images[labels == c][start:stop] for c in range(10)])
            start = stop
    return arrays


def make_backgrounds() -> dict[str, np.ndarray]:
    """The photographs in RGB, reduced to a common short side."""
    arrays = {}
    for split, photographs in BACKGROUNDS.items():
        for name, (package, relative) in photographs.items():
            root = Path(importlib.util.find_spec(package).origin).parent
            image = cv2.imread(str(root / relative), cv2.IMREAD_COLOR)[..., ::-1]
            scale = BACKGROUND_SHORT_SIDE / min(image.shape[:2])
            size = tuple(round(s * scale) for s in image.shape[1::-1])
            arrays[f'{split}/{name}'] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--fashion-mnist', type=Path, required=True)
    parser.add_argument('--out', type=Path, default=Path('mmforget/datasets/data'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / 'garments_sprites.npz', **make_sprites(args.fashion_mnist))
    np.savez_compressed(args.out / 'garments_backgrounds.npz', **make_backgrounds())
    for path in sorted(args.out.glob('garments_*.npz')):
        print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
