"""The authors' COCO config on a small set of all 80 classes: one task, end to end."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner

from mmforget.engine.results import read_results

CLASSES = CocoDataset.METAINFO['classes']
IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
IMAGES, EACH, SIZE = 32, 5, 96


def write_coco(folder, name):
    """Each class twice, on images that hold five classes, in COCO's own form."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(IMAGES):
        file = f'{number:012d}.jpg'
        pixels = generator.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / file), pixels)
        images.append({'id': 7 * number + 1, 'file_name': file, 'width': SIZE, 'height': SIZE})
        for place in range(EACH):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': 7 * number + 1,
                    'category_id': IDS[(EACH * number + place) % 80],
                    'bbox': [15 * place, 10 * place, 30, 40],
                    'area': 1200,
                    'iscrowd': 0,
                }
            )
    categories = [{'id': i, 'name': n} for i, n in zip(IDS, CLASSES, strict=True)]
    document = {'images': images, 'annotations': annotations, 'categories': categories}
    path = folder.parent / f'{name}.json'
    path.write_text(json.dumps(document))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'measured'), [('gs-lora-plus-plus', True), ('der', False)])
def test_one_task_of_the_authors_protocol(method, measured, tmp_path, plain_dumps):
    train, val = (write_coco(tmp_path / split, f'{split}_file') for split in ('train', 'val'))
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(f'configs/coco/{method}_deformable-detr_r50_30e_coco-7x10-fewshot.py')
    checkpoint = tmp_path / 'detector.pth'
    torch.manual_seed(0)
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None  # Nothing is fetched.
    detector = MODELS.build(model)
    detector.init_weights()
    torch.save({'state_dict': detector.state_dict(), 'meta': {}}, checkpoint)
    resize = dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=True)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), resize]
    for loader, file, split, pack in (
        ('train_dataloader', train, 'train', dict(type='PackDetInputs')),
        ('val_dataloader', val, 'val', dict(type='PackDetInputs', meta_keys=keys)),
    ):
        config[loader].num_workers, config[loader].persistent_workers = 0, False
        config[loader].dataset |= dict(
            data_root='',
            ann_file=str(file),
            data_prefix=dict(img=f'{tmp_path / split}/'),
            pipeline=[*load, pack],
        )
    config.val_evaluator.ann_file = str(val)
    config.merge_from_dict(
        {
            'load_from': str(checkpoint),
            'work_dir': str(tmp_path / 'run'),
            # Of the seven tasks the first one; a batch of 2 + 2, for a CPU.
            'train_cfg.scenario.tasks': [10],
            'train_cfg.scenario.retain': {'shots': None, 'ratio': 0.2},
            'train_cfg.scenario.forget': {'shots': 1},
            'train_cfg.retain_epochs': 1,
            'train_dataloader.batch_size': 2,
            'auto_scale_lr.enable': True,
            'log_level': 'WARNING',
        }
    )
    if not measured:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    runner = Runner.from_cfg(config)
    runner.train()
    document = read_results(tmp_path / 'run' / 'forgetting.json')
    (row,) = document['tasks']
    assert row['classes'][0] == 'microwave' and len(row['classes']) == 10
    # 30 images hold a class that is retained, a fifth of them is drawn.
    assert row['images']['retain'] // 2 == row['steps'] > 1
    assert set(row['per_class']) == set(CLASSES if measured else ())
    rate = config.optim_wrapper.optimizer.lr
    assert runner.optim_wrapper.get_lr()['lr'][0] == pytest.approx(rate * 2 / 32)
    saved = torch.load(tmp_path / 'run' / 'task_1.pth', weights_only=True)['state_dict']
    loaded = torch.load(checkpoint, weights_only=True)['state_dict']
    assert saved.keys() == loaded.keys()
    moved = {name for name in saved if not torch.equal(saved[name], loaded[name])}
    heads = {name for name in moved if name.startswith('bbox_head')}
    assert moved and not heads
    if method != 'der':
        assert all('.ffn.layers.' in name for name in moved)
