"""Pascal VOC as MMDetection's configs have it: XML files, two years, repeated; COCO AP out."""

import copy
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mmengine.config import Config

import mmforget
from mmforget.datasets.garments_scenes import CLASSES

ROOT = Path(__file__).parents[2]
TASKS = [['bag', 'sneaker'], ['dress']]
CONFIG = ROOT / 'configs/garments/deformable-detr_mobilenetv2_3k_garments.py'
CHECKPOINT = 'mmforget://deformable-detr_mobilenetv2_garments'
pytestmark = pytest.mark.slow


def write_voc(source, split, folder, name, first=0, last=None):
    """Part of a COCO split in VOC's layout; boxes are whole numbers, so nothing is rounded."""
    for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    document = json.loads((source / 'annotations' / f'{split}.json').read_text())
    names = {category['id']: category['name'] for category in document['categories']}
    images = document['images'][first:last]
    for image in images:
        root = ElementTree.Element('annotation')
        size = ElementTree.SubElement(root, 'size')
        for key in ('width', 'height'):
            ElementTree.SubElement(size, key).text = str(image[key])
        for annotation in document['annotations']:
            if annotation['image_id'] != image['id']:
                continue
            item = ElementTree.SubElement(root, 'object')
            ElementTree.SubElement(item, 'name').text = names[annotation['category_id']]
            ElementTree.SubElement(item, 'difficult').text = '0'
            box = ElementTree.SubElement(item, 'bndbox')
            x, y, width, height = map(int, annotation['bbox'])
            corners = {'xmin': x, 'ymin': y, 'xmax': x + width, 'ymax': y + height}
            for key, value in corners.items():
                ElementTree.SubElement(box, key).text = str(value + 1)  # VOC counts from 1.
        stem = f'{split}_{Path(image["file_name"]).stem}'
        ElementTree.ElementTree(root).write(folder / 'Annotations' / f'{stem}.xml')
        # PNG under VOC's name: the reader looks at the content.
        shutil.copy(source / split / image['file_name'], folder / 'JPEGImages' / f'{stem}.jpg')
    stems = [f'{split}_{Path(image["file_name"]).stem}' for image in images]
    (folder / 'ImageSets' / 'Main' / f'{name}.txt').write_text('\n'.join(stems))


@pytest.fixture(scope='module')
def coco(tiny_data):
    """The Garments detector's config on the tiny data, in COCO's format."""
    config = Config.fromfile(CONFIG)
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.update(
            type='CocoDataset',
            data_root=str(tiny_data),
            ann_file=f'annotations/{split}.json',
            data_prefix={'img': f'{split}/'},
            metainfo={'classes': CLASSES},
        )
        config[f'{split}_dataloader'].dataset.pop('split')
    config.val_evaluator.ann_file = f'{tiny_data}/annotations/val.json'
    return config


@pytest.fixture(scope='module')
def voc(coco, tiny_data, tmp_path_factory):
    """The same in the format and the structure of MMDetection's VOC configs."""
    root = tmp_path_factory.mktemp('VOCdevkit')
    write_voc(tiny_data, 'train', root / 'VOC2007', 'trainval', last=12)
    write_voc(tiny_data, 'train', root / 'VOC2012', 'trainval', first=12)
    write_voc(tiny_data, 'val', root / 'VOC2007', 'test')
    config = copy.deepcopy(coco)

    def part(year, name, pipeline, **options):
        return {
            'type': 'VOCDataset',
            'data_root': str(root),
            'ann_file': f'VOC{year}/ImageSets/Main/{name}.txt',
            'data_prefix': {'sub_data_root': f'VOC{year}/'},
            'metainfo': coco.val_dataloader.dataset.metainfo,
            'pipeline': pipeline,
            **options,
        }

    pipeline = config.train_dataloader.dataset.pipeline
    filters = {'filter_cfg': {'filter_empty_gt': True, 'min_size': 32, 'bbox_min_size': 1}}
    config.train_dataloader.dataset = {
        'type': 'RepeatDataset',
        'times': 3,
        'dataset': {
            'type': 'ConcatDataset',
            'ignore_keys': ['dataset_type'],
            'datasets': [part(year, 'trainval', pipeline, **filters) for year in (2007, 2012)],
        },
    }
    test = part(2007, 'test', config.val_dataloader.dataset.pipeline, test_mode=True)
    config.val_dataloader.dataset = test
    config.val_evaluator = {'type': 'VOCMetric', 'metric': 'mAP', 'eval_mode': '11points'}
    return config


def test_ap_is_that_of_the_same_images_in_cocos_format(coco, voc):
    ours, theirs = (mmforget.evaluate(config, CHECKPOINT, TASKS) for config in (voc, coco))
    assert ours.full.AP_r == pytest.approx(theirs.full.AP_r) and theirs.full.AP_r > 0.3
    for name, pair in theirs.per_class.items():
        assert ours.per_class[name] == pytest.approx(pair), name


def test_both_years_are_forgotten_from(voc, tmp_path):
    plan = mmforget.plan(voc, CHECKPOINT, TASKS, tmp_path / 'forgotten.pth', steps=4)
    (first, _) = plan.preview.tasks
    assert 0 < first.images['forget'] <= 24 and first.images['retain'] > 12
    assert any('VOCMetric gave way to COCO AP' in note for note in plan.notes)
    result = mmforget.forget(
        voc,
        CHECKPOINT,
        TASKS[:1],
        tmp_path / 'forgotten.pth',
        steps=2,
        cfg_options={'log_level': 'ERROR', 'custom_hooks.0.sparsity': None},
    )
    assert result.measured and result.checkpoint.is_file()
    assert [row['steps'] for row in result.results['tasks']] == [2]
