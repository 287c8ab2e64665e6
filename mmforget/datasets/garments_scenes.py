"""Composes the Garments benchmark: real photographs of garments on real photographs.

The objects are Fashion-MNIST photographs, the backgrounds are photographs; the scenes are
composed. Everything is a pure function of (seed, split, scene index).
"""

import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

CLASSES = (
    't-shirt',
    'trouser',
    'pullover',
    'dress',
    'coat',
    'sandal',
    'shirt',
    'sneaker',
    'bag',
    'ankle-boot',
)
SPLIT_SIZES = {'train': 4000, 'val': 300, 'test': 1000}
SPLIT_SEEDS = {'train': 0, 'val': 1, 'test': 2}
IMAGE_SIZE = 160
GARMENTS_PER_SCENE = (2, 5)
GARMENT_SIZE = (36, 72)
MAX_ROTATION_DEGREES = 20.0
MAX_OVERLAP = 0.25
NOISE_STD = (1.0, 5.0)
SEED = 20240311
FORMAT_VERSION = 1
_PLACEMENT_TRIES = 30
_DATA = Path(__file__).parent / 'data'


@dataclass(frozen=True)
class Scene:
    """One composed image.

    Attributes:
        pixels: (160, 160, 3) uint8, RGB.
        labels: One class index per garment.
        masks: One visible silhouette per garment, (160, 160) bool.
    """

    pixels: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]


@functools.cache
def garment_sprites(split: str) -> np.ndarray:
    """The garments of a split, (10, sprites per class, 28, 28) uint8."""
    with (_DATA / 'garments_sprites.npz').open('rb') as file:
        return np.load(file)[split]


@functools.cache
def _backgrounds(split: str) -> list[np.ndarray]:
    """RGB photographs; val and test share theirs."""
    prefix = 'train/' if split == 'train' else 'test/'
    with (_DATA / 'garments_backgrounds.npz').open('rb') as file:
        archive = np.load(file)
        return [archive[key] for key in sorted(archive.files) if key.startswith(prefix)]


def _compose_background(rng: np.random.Generator, split: str) -> np.ndarray:
    photographs = _backgrounds(split)
    photograph = photographs[rng.integers(len(photographs))]
    side = int(rng.integers(IMAGE_SIZE, min(photograph.shape[:2]) + 1))
    top = int(rng.integers(photograph.shape[0] - side + 1))
    left = int(rng.integers(photograph.shape[1] - side + 1))
    crop = photograph[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = np.ascontiguousarray(crop)
    return cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)


def _dye(rng: np.random.Generator) -> np.ndarray:
    """A random colour, bright enough to show the garment's texture; (3,) in 0..1."""
    hue, saturation, value = rng.uniform(0, 179), rng.uniform(30, 230), rng.uniform(150, 255)
    hsv = np.array([[[hue, saturation, value]]], np.float32).round().astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255


def _draw_garment(
    rng: np.random.Generator, split: str, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """A rotated, dyed, scaled sprite: RGB (S, S, 3) in 0..255 and alpha (S, S) in 0..1."""
    sprites = garment_sprites(split)[label]
    sprite = sprites[rng.integers(len(sprites))].astype(np.float32)
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    size = float(rng.uniform(*GARMENT_SIZE))
    angle = float(rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
    silhouette = _silhouette(np.ascontiguousarray(sprite))
    canvas = int(np.ceil(size * 1.3))
    matrix = cv2.getRotationMatrix2D((13.5, 13.5), angle, size / 28)
    matrix[:, 2] += (canvas - 1) / 2 - 13.5
    grey = cv2.warpAffine(sprite, matrix, (canvas, canvas), flags=cv2.INTER_CUBIC)
    alpha = cv2.warpAffine(silhouette, matrix, (canvas, canvas), flags=cv2.INTER_LINEAR)
    shade = 0.2 + 0.8 * np.clip(grey, 0, 255) / 255
    return shade[..., None] * _dye(rng) * 255, alpha


def _silhouette(sprite: np.ndarray) -> np.ndarray:
    """The garment without its black surrounding, holes filled; (28, 28) float 0 or 1."""
    lit = (sprite > 12).astype(np.uint8)
    contours, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(lit)
    cv2.drawContours(filled, contours, -1, 1, thickness=cv2.FILLED)
    return filled.astype(np.float32)


def compose_scene(split: str, index: int, seed: int = SEED) -> Scene:
    """Composes one scene; a pure function of its arguments."""
    rng = np.random.default_rng([seed, SPLIT_SEEDS[split], index])
    pixels = _compose_background(rng, split).astype(np.float32)
    labels: list[int] = []
    masks: list[np.ndarray] = []
    full_areas: list[int] = []
    for _ in range(int(rng.integers(GARMENTS_PER_SCENE[0], GARMENTS_PER_SCENE[1] + 1))):
        label = int(rng.integers(len(CLASSES)))
        colour, alpha = _draw_garment(rng, split, label)
        placed = _place(rng, alpha, masks, full_areas)
        if placed is None:
            continue
        alpha_full, top, left = placed
        mask = alpha_full > 0.5
        canvas = alpha.shape[0]
        region = _clip_region(top, left, canvas)
        target, source = region
        blend = alpha_full[target][..., None]
        pixels[target] = pixels[target] * (1 - blend) + colour[source] * blend
        masks = [old & ~mask for old in masks]
        masks.append(mask)
        full_areas.append(int(mask.sum()))
        labels.append(label)
    noise = rng.normal(0, rng.uniform(*NOISE_STD), pixels.shape)
    return Scene(np.clip(pixels + noise, 0, 255).round().astype(np.uint8), labels, masks)


def _clip_region(top: int, left: int, canvas: int) -> tuple[tuple, tuple]:
    """Slices of the image and of the canvas where both exist."""
    rows = slice(max(top, 0), min(top + canvas, IMAGE_SIZE))
    columns = slice(max(left, 0), min(left + canvas, IMAGE_SIZE))
    source_rows = slice(rows.start - top, rows.stop - top)
    source_columns = slice(columns.start - left, columns.stop - left)
    return (rows, columns), (source_rows, source_columns)


def _place(
    rng: np.random.Generator,
    alpha: np.ndarray,
    masks: list[np.ndarray],
    full_areas: list[int],
) -> tuple[np.ndarray, int, int] | None:
    """Finds a place inside the image that hides no earlier garment by more than MAX_OVERLAP."""
    rows, columns = np.nonzero(alpha > 0.5)
    if len(rows) == 0:
        return None
    for _ in range(_PLACEMENT_TRIES):
        top = int(rng.integers(-rows.min(), IMAGE_SIZE - rows.max()))
        left = int(rng.integers(-columns.min(), IMAGE_SIZE - columns.max()))
        target, source = _clip_region(top, left, alpha.shape[0])
        full = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
        full[target] = alpha[source]
        mask = full > 0.5
        hidden = (
            1 - (old & ~mask).sum() / area for old, area in zip(masks, full_areas, strict=True)
        )
        if all(share <= MAX_OVERLAP for share in hidden):
            return full, top, left
    return None


def _annotations(scene: Scene) -> list[dict[str, Any]]:
    """COCO annotations without ids: visible masks as RLE and their boxes."""
    annotations = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        x, y, w, h = (float(v) for v in coco_mask.toBbox(rle))
        annotations.append(
            {
                'category_id': label + 1,
                'bbox': [x, y, w, h],
                'area': float(coco_mask.area(rle)),
                'iscrowd': 0,
                'segmentation': {'size': list(rle['size']), 'counts': rle['counts'].decode()},
            }
        )
    return annotations


def _write_scene(job: tuple[str, str, int]) -> tuple[str, list[dict[str, Any]]]:
    """Writes one PNG; returns the digest of its pixels and its annotations."""
    folder, split, index = job
    scene = compose_scene(split, index)
    path = os.path.join(folder, split, f'{index:06d}.png')
    if not cv2.imwrite(path, scene.pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f'Could not write {path}. Is the disk full or the folder read-only?')
    return hashlib.sha256(scene.pixels.tobytes()).hexdigest(), _annotations(scene)


def _coco_json(split: str, annotations: list[list[dict[str, Any]]]) -> dict[str, Any]:
    images, flat = [], []
    for index, of_image in enumerate(annotations):
        images.append(
            {
                'id': index + 1,
                'file_name': f'{index:06d}.png',
                'width': IMAGE_SIZE,
                'height': IMAGE_SIZE,
            }
        )
        flat.extend({'image_id': index + 1, **a} for a in of_image)
    return {
        'info': {'description': f'Garments {split}', 'version': str(FORMAT_VERSION)},
        'images': images,
        'annotations': [{'id': i + 1, **a} for i, a in enumerate(flat)],
        'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)],
    }


def scenes_to_coco(split: str, scenes: list[Scene]) -> dict[str, Any]:
    """The COCO document of some scenes, which stand in files ``000000.png`` and so on."""
    return _coco_json(split, [_annotations(scene) for scene in scenes])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An exclusive lock between processes, freed when the process dies."""
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _generate_split(root: Path, split: str, workers: int, progress: bool) -> str:
    """Writes one split into ``root``; returns its checksum over pixels and JSON."""
    from tqdm import tqdm

    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    jobs = [(str(root), split, index) for index in range(SPLIT_SIZES[split])]
    digest = hashlib.sha256()
    annotations = []
    # Forked like a DataLoader's workers: a fresh interpreter would import all of mmdet first.
    cv2.setNumThreads(0)
    with multiprocessing.get_context('fork').Pool(workers) as pool:
        written = pool.imap(_write_scene, jobs, chunksize=50)
        for pixels, of_image in tqdm(
            written, f'Garments {split}', len(jobs), disable=not progress, unit='scene'
        ):
            digest.update(pixels.encode())
            annotations.append(of_image)
    document = json.dumps(_coco_json(split, annotations), sort_keys=True)
    digest.update(document.encode())
    (root / 'annotations' / f'{split}.json').write_text(document)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The libraries that decide pixels and masks."""
    return {'numpy': np.__version__, 'opencv': cv2.__version__}


def _verify(split: str, checksum: str) -> None:
    """Compares with the shipped checksum.

    Raises:
        RuntimeError: Another checksum although the libraries are those of the reference.
    """
    reference = json.loads((_DATA / 'garments_checksums.json').read_text())
    if reference['splits'].get(split) == checksum:
        return
    message = (
        f'Garments {split} has checksum {checksum}, expected {reference["splits"].get(split)} '
        f'(made with {reference["versions"]}, here {versions()}).'
    )
    if reference['versions'] == versions():
        raise RuntimeError(f'{message} The package data may be damaged: install mmforget anew.')
    warnings.warn(
        f'{message} The scenes differ slightly from the reference; published figures may too.',
        stacklevel=2,
    )


def prepare_garments(
    root: str | os.PathLike,
    splits: tuple[str, ...] = tuple(SPLIT_SIZES),
    workers: int | None = None,
    progress: bool = True,
    verify: bool = True,
) -> dict[str, str]:
    """Makes the splits that are missing below ``root``; does nothing for those present.

    Safe when several processes start at once: one works, the others wait. A split appears whole
    or not at all.

    Args:
        root: Folder for ``<split>/*.png`` and ``annotations/<split>.json``.
        splits: Names out of train, val, test.
        workers: Processes; all cores by default.
        progress: Shows a progress bar.
        verify: Compares with the shipped checksum.

    Returns:
        The checksum of every split made by this call.

    Raises:
        ValueError: A split's name is unknown.
        RuntimeError: The checksum differs in the reference environment.
    """
    root = Path(root)
    for split in splits:
        if split not in SPLIT_SIZES:
            raise ValueError(f'Garments has no split {split!r}; it has {", ".join(SPLIT_SIZES)}.')
    made: dict[str, str] = {}
    if all(is_prepared(root, split) for split in splits):
        return made
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    with _locked(root / '.lock'):
        for split in splits:
            if is_prepared(root, split):
                continue
            temporary = Path(tempfile.mkdtemp(prefix=f'.{split}-', dir=root))
            try:
                made[split] = _generate_split(
                    temporary, split, workers or os.cpu_count() or 1, progress
                )
                if verify:
                    _verify(split, made[split])
                shutil.rmtree(root / split, ignore_errors=True)
                os.replace(temporary / split, root / split)
                # The annotation file comes last: with it the split counts as prepared.
                os.replace(
                    temporary / 'annotations' / f'{split}.json',
                    root / 'annotations' / f'{split}.json',
                )
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return made


def is_prepared(root: str | os.PathLike, split: str) -> bool:
    """Whether the split stands whole below ``root``."""
    return (Path(root) / 'annotations' / f'{split}.json').is_file()
