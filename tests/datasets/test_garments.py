"""The embedded benchmark: scenes, files, and what happens when two processes start at once."""

import json
import multiprocessing

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmforget.datasets import garments_scenes as scenes
from mmforget.datasets.garments import GarmentsDataset


@pytest.fixture
def small(monkeypatch):
    """Splits of a few scenes; the checksums of the real ones do not apply."""
    monkeypatch.setattr(scenes, 'SPLIT_SIZES', {'train': 6, 'val': 4, 'test': 4})


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_scenes_keep_the_promises_of_the_benchmark(split):
    for index in range(25):
        scene = scenes.compose_scene(split, index)
        assert scene.pixels.shape == (160, 160, 3) and scene.pixels.dtype == np.uint8
        assert 1 <= len(scene.labels) <= 5
        for mask in scene.masks:
            ys, xs = np.nonzero(mask)
            assert mask.sum() > 100
            # 36 to 72 px for the square sprite; rotation may widen, a slim garment is smaller.
            assert max(np.ptp(ys), np.ptp(xs)) < 72 * 1.3
        assert np.stack(scene.masks).sum(axis=0).max() == 1


def test_a_scene_is_a_function_of_split_and_index():
    first, again = (scenes.compose_scene('val', 3) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels) and first.labels == again.labels
    assert not np.array_equal(first.pixels, scenes.compose_scene('val', 4).pixels)
    assert not np.array_equal(first.pixels, scenes.compose_scene('test', 3).pixels)


def test_splits_share_no_sprite():
    with np.load(scenes._DATA / 'garments_sprites.npz') as archive:
        assert {k: archive[k].shape for k in archive.files} == {
            'train': (10, 400, 28, 28),
            'val': (10, 50, 28, 28),
            'test': (10, 100, 28, 28),
        }
        val = {sprite.tobytes() for sprite in archive['val'].reshape(-1, 28, 28)}
        test = {sprite.tobytes() for sprite in archive['test'].reshape(-1, 28, 28)}
        train = {sprite.tobytes() for sprite in archive['train'].reshape(-1, 28, 28)}
    assert not val & test and not train & (val | test)


def test_no_garment_is_hidden_by_more_than_a_quarter():
    """Draws each scene's garments again, alone, and compares with what stayed visible."""
    for index in range(40):
        scene = scenes.compose_scene('train', index)
        for mask, annotation in zip(scene.masks, scenes._annotations(scene), strict=True):
            filled = mask.copy().astype(np.uint8)
            contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            hull = cv2.convexHull(np.concatenate(contours))
            # A visible part cannot be much smaller than its outline unless much was hidden.
            assert mask.sum() > 0.3 * cv2.contourArea(hull)
            x, y, w, h = annotation['bbox']
            ys, xs = np.nonzero(mask)
            assert (x, y, w, h) == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)


def test_files_agree_with_the_scenes(tmp_path, small):
    scenes.prepare_garments(tmp_path, ('val',), workers=2, progress=False, verify=False)
    coco = COCO(tmp_path / 'annotations' / 'val.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(scenes.CLASSES)
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        scene = scenes.compose_scene('val', index)
        pixels = cv2.imread(str(tmp_path / 'val' / image['file_name']))[..., ::-1]
        assert np.array_equal(pixels, scene.pixels)
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        assert [a['category_id'] - 1 for a in annotations] == scene.labels
        for annotation, mask in zip(annotations, scene.masks, strict=True):
            assert np.array_equal(coco_mask.decode(coco.annToRLE(annotation)), mask)


def test_number_of_processes_does_not_matter(tmp_path, small):
    one = scenes.prepare_garments(tmp_path / 'a', ('val',), 1, progress=False, verify=False)
    two = scenes.prepare_garments(tmp_path / 'b', ('val',), 2, progress=False, verify=False)
    assert one == two


def test_what_is_there_is_not_made_again(tmp_path, small):
    scenes.prepare_garments(tmp_path, ('val',), 1, progress=False, verify=False)
    before = (tmp_path / 'annotations' / 'val.json').stat().st_mtime_ns
    assert scenes.prepare_garments(tmp_path, ('val',), 1, progress=False) == {}
    assert (tmp_path / 'annotations' / 'val.json').stat().st_mtime_ns == before


def test_an_interrupted_split_leaves_nothing_behind(tmp_path, small, monkeypatch):
    monkeypatch.setattr(scenes, '_coco_json', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scenes.prepare_garments(tmp_path, ('val',), 1, progress=False, verify=False)
    assert not scenes.is_prepared(tmp_path, 'val')
    assert {p.name for p in tmp_path.iterdir()} == {'annotations', '.lock'}


def test_another_checksum_is_an_error_here_and_a_warning_elsewhere(tmp_path, small, monkeypatch):
    reference = json.loads((scenes._DATA / 'garments_checksums.json').read_text())
    monkeypatch.setattr(scenes, 'versions', lambda: reference['versions'])
    with pytest.raises(RuntimeError, match='install mmforget anew'):
        scenes.prepare_garments(tmp_path, ('val',), 1, progress=False)
    assert not scenes.is_prepared(tmp_path, 'val')
    monkeypatch.setattr(scenes, 'versions', lambda: {'numpy': '0', 'opencv': '0'})
    with pytest.warns(UserWarning, match='differ slightly'):
        scenes.prepare_garments(tmp_path, ('val',), 1, progress=False)
    assert scenes.is_prepared(tmp_path, 'val')


def test_two_processes_may_start_at_once(tmp_path, small):
    context = multiprocessing.get_context('fork')
    made = context.Queue()

    def prepare():
        made.put(len(scenes.prepare_garments(tmp_path, ('val',), 1, False, False)))

    processes = [context.Process(target=prepare) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(made.get(timeout=60) for _ in processes) == [0, 1]
    for process in processes:
        process.join()
    assert len(list((tmp_path / 'val').glob('*.png'))) == 4


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="no split 'dev'; it has train, val, test"):
        scenes.prepare_garments(tmp_path, ('dev',))


def test_dataset_makes_its_files_and_keeps_the_label_map(tmp_path, small, monkeypatch):
    monkeypatch.setattr(scenes, '_verify', lambda *_: None)
    dataset = GarmentsDataset('train', data_root=str(tmp_path), pipeline=[])
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == scenes.CLASSES
    labels = [i['bbox_label'] for i in dataset.get_data_info(0)['instances']]
    assert labels == scenes.compose_scene('train', 0).labels
