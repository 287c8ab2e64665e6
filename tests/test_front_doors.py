"""The front doors of MMDetection: its own scripts, from its own wheel, on an ordinary config."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]
MIM = Path(mmdet.__file__).parent / '.mim'
STOCK = MIM / 'configs' / 'deformable_detr' / 'deformable-detr_r50_16xb2-50e_coco.py'
GARMENTS = ROOT / 'configs/garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py'
CLASSES = CocoDataset.METAINFO['classes']
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(quick_start):
    """Runs a script as a user does; returns all that it prints."""

    def run(script, *arguments, cwd, path=str(ROOT)):
        environment = {**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{quick_start}'}
        environment.setdefault('MMFORGET_DATA', str(ROOT / 'data'))
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', str(script), *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout

    return run


def write_split(folder, split, first_id, number):
    """Long and low images: the pipelines scale them by the longer side, so they stay small."""
    (folder / split).mkdir(parents=True)
    rng = np.random.default_rng(first_id)
    images, annotations = [], []
    for image_id in range(first_id, first_id + number):
        name = f'{image_id:012d}.jpg'
        pixels = rng.integers(0, 255, (36, 4000, 3), dtype=np.uint8)
        images.append({'id': image_id, 'file_name': name, 'height': 36, 'width': 4000})
        # The classes of the requests on every image, then a few of the others.
        drawn = ['microwave', 'truck', *rng.choice(CLASSES, 3, replace=False)]
        for place, category in enumerate(drawn):
            x, y, width, height = 20 + 790 * place, 4, 750, 28
            pixels[y : y + height, x : x + width] = rng.integers(0, 255, 3)
            annotation = {'id': len(annotations) + 1000 * first_id + 1, 'image_id': image_id}
            annotation |= {'category_id': category_ids()[category], 'bbox': [x, y, width, height]}
            annotation |= {'area': width * height, 'iscrowd': 0}
            annotations.append(annotation)
        cv2.imwrite(str(folder / split / name), pixels)
    document = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for name, number in category_ids().items()],
    }
    (folder / 'annotations').mkdir(exist_ok=True)
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(document))


def category_ids():
    """COCO's own ids are not consecutive: ten numbers below 91 are left out."""
    left_out = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    ids = [number for number in range(1, 91) if number not in left_out]
    return dict(zip(CLASSES, ids, strict=True))


def readme_config():
    """The config that the README's section shows, as it stands there."""
    readme = (ROOT / 'README.md').read_text()
    section = readme.split('## In your own config')[1]
    return re.search(r'```python\n(.*?)```', section, re.DOTALL).group(1)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """A folder in which a user works: data/coco, a detector, the config of the README."""
    folder = tmp_path_factory.mktemp('coco')
    write_split(folder / 'data' / 'coco', 'train2017', first_id=1, number=12)
    write_split(folder / 'data' / 'coco', 'val2017', first_id=101, number=4)
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(STOCK)
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, folder / 'the-trained-detector.pth')
    (folder / 'forget_coco.py').write_text(readme_config())
    return folder


@pytest.fixture(scope='module')
def forgotten(coco, run):
    """The README's config through mmdet's own training script: two tasks."""
    run(
        MIM / 'tools' / 'train.py',
        'forget_coco.py',
        *('--work-dir', 'work_dirs/forget_coco'),
        '--cfg-options',
        *('train_cfg.max_steps=2', 'train_cfg.scenario.tasks=[[microwave],[truck]]'),
        *('train_dataloader.batch_size=1', 'randomness.seed=1'),
        cwd=coco,
    )
    return coco / 'work_dirs' / 'forget_coco'


def test_mmdets_training_script_runs_the_readmes_config(forgotten):
    document = json.loads((forgotten / 'forgetting.json').read_text())
    assert [row['classes'] for row in document['tasks']] == [['microwave'], ['truck']]
    for row in document['tasks']:
        assert row['steps'] == 2
        assert row['trainable'] == 245_760
        assert len(row['groups']) == 12 and all(norm > 0 for norm in row['groups'].values())
        assert set(row['per_class']) == set(CLASSES)
    assert document['base']['full']['AP'] is not None
    assert {path.name for path in (forgotten / 'adapters').iterdir()} == {
        *('task_1', 'task_2', 'cumulative')
    }


def test_what_comes_out_is_the_stock_detector(coco, forgotten):
    before = torch.load(coco / 'the-trained-detector.pth', weights_only=True)['state_dict']
    after = torch.load(forgotten / 'task_2.pth', weights_only=True)['state_dict']
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(re.search(r'\.ffn\.layers\..*weight$', name) for name in moved)


@pytest.fixture(scope='module')
def without_mmforget(tmp_path_factory):
    """A path on which mmforget is not to be had, so that no line of it can take part."""
    folder = tmp_path_factory.mktemp('blocker')
    (folder / 'mmforget.py').write_text("raise ImportError('mmforget is not installed here')\n")
    return str(folder)


def test_mmdets_test_script_reads_it_with_nothing_of_ours(coco, forgotten, without_mmforget, run):
    printed = run(
        MIM / 'tools' / 'test.py',
        *(STOCK, forgotten / 'task_2.pth', '--work-dir', 'work_dirs/test'),
        cwd=coco,
        path=without_mmforget,
    )
    assert 'Load checkpoint' in printed and 'task_2.pth' in printed
    assert 'unexpected key' not in printed and 'missing keys' not in printed
    assert re.search(r'coco/bbox_mAP: -?\d\.\d+', printed)


def test_mmdets_inference_reads_it_as_the_docs_show(coco, forgotten, without_mmforget, run):
    page = (ROOT / 'docs' / 'get_started.md').read_text()
    (code,) = re.findall(r'```python\n([^`]*inference_detector[^`]*)```', page)
    code = code.replace('deformable-detr_r50_16xb2-50e_coco.py', str(STOCK))
    code = code.replace('task_3.pth', str(forgotten / 'task_2.pth'))
    code = code.replace('street.jpg', 'data/coco/val2017/000000000101.jpg')
    script = coco / 'inference.py'
    script.write_text(code + 'print(len(result.pred_instances.scores), "scores")\n')
    assert '100 scores' in run(script, cwd=coco, path=without_mmforget)


def timeless(work_dir):
    document = json.loads((work_dir / 'forgetting.json').read_text())
    for row in document['tasks']:
        assert row.pop('seconds') > 0
        assert row.pop('peak_memory_mb') > 0
    return document


SHORT = (
    *('train_cfg.max_steps=2', 'train_cfg.scenario.tasks=[[bag],[dress]]'),
    *('custom_hooks.0.sparsity=None', 'val_dataloader.dataset.indices=20'),
)


@pytest.fixture(scope='module')
def garments(tmp_path_factory, run):
    """A short run of the Garments config through our script, in the folder ``ours``."""
    folder = tmp_path_factory.mktemp('garments')
    script = ROOT / 'tools' / 'train.py'
    run(script, GARMENTS, '--work-dir', 'ours', '--cfg-options', *SHORT, cwd=folder)
    return folder


def test_mmdets_script_and_ours_give_the_same_figures(garments, run):
    script = MIM / 'tools' / 'train.py'
    run(script, GARMENTS, '--work-dir', 'mmdets', '--cfg-options', *SHORT, cwd=garments)
    ours = timeless(garments / 'ours')
    assert ours == timeless(garments / 'mmdets')
    assert ours['base']['full']['AP'] > 0
    assert [row['steps'] for row in ours['tasks']] == [2, 2]


STOPPING = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class StopBeforeSecondTask(Hook):
    def before_forgetting_task(self, runner, task):
        if task.index == 1:
            raise SystemExit(0)
"""


def test_resume_goes_on_after_the_first_task(garments, run):
    """``--resume`` of mmdet's script gives the figures of the run in one go."""
    (garments / 'stopping.py').write_text(STOPPING)
    (garments / 'stopped_run.py').write_text(
        f'_base_ = [{str(GARMENTS)!r}]\n'
        "custom_imports = dict(imports=['mmforget', 'stopping'])\n"
        "custom_hooks = [dict(type='mmforget.GroupSparseLoRAHook', rank=8),\n"
        "                dict(type='StopBeforeSecondTask')]\n"
    )
    script, options = ROOT / 'tools' / 'train.py', ('--work-dir', 'stopped', '--cfg-options')
    path = f'{ROOT}{os.pathsep}{garments}'
    run(script, 'stopped_run.py', *options, *SHORT, cwd=garments, path=path)
    assert len(timeless(garments / 'stopped')['tasks']) == 1
    run(script, GARMENTS, '--resume', *options, *SHORT, cwd=garments)
    assert timeless(garments / 'stopped') == timeless(garments / 'ours')


def test_test_script(garments, run):
    """Ours is mmdet's; the figures of the last task are those of the run."""
    printed = run(
        *(ROOT / 'tools' / 'test.py', GARMENTS, 'ours/task_2.pth', '--work-dir', 'test'),
        '--cfg-options',
        *('test_dataloader.dataset.split=val', 'test_dataloader.dataset.indices=20'),
        f'test_evaluator.ann_file={os.environ.get("MMFORGET_DATA", ROOT / "data")}'
        '/garments/annotations/val.json',
        *('test_evaluator.scenario.tasks=[[bag],[dress]]',),
        'test_evaluator.base=ours/forgetting.json',
        cwd=garments,
    )
    scores = timeless(garments / 'ours')['tasks'][1]['full']
    for name in ('AP_f', 'AP_r', 'H'):
        (shown,) = re.findall(rf'coco/{name}: (-?\d+\.\d+)', printed)
        assert float(shown) == pytest.approx(scores[name], abs=1e-4)
