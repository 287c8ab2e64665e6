"""What cannot come to an end is refused before the first image is looked at."""

import json
import shutil

import pytest
import torch
from mmengine.hooks import Hook

from mmforget.taps import DeformableDETRTap

HOOK = {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2}
CHOSEN = {'type': 'ChosenGroups', 'groups': [['encoder.layers.0'], ['encoder.layers.7']]}


class Work(Hook):
    """Any inference or training counts as work."""

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        raise AssertionError('an image was evaluated')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise AssertionError('a step was trained')


def refused(make_runner, work_dir, error, message, **overrides):
    """The error comes, nothing was computed, and nothing of a run was written."""
    with pytest.raises(error, match=message):
        make_runner(work_dir, Work(), **overrides).train()
    for name in ('resume.pth', 'forgetting.json', 'last_checkpoint', 'adapters', 'task_1.pth'):
        assert not (work_dir / name).exists()


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'train_cfg.scenario.tasks': [['Bag']]}, "names the class 'Bag'.*Did you mean 'bag'"),
        ({'train_cfg.scenario.tasks': [['bag'], []]}, r'tasks\[1\] is \[\]; expected a list of at'),
        ({'train_cfg.scenario.tasks': []}, r'scenario.tasks is \[\]; expected a list of lists'),
        ({'custom_hooks': [{**HOOK, 'rank': 0}]}, "rank=0 .*layer 'encoder.*from 1 to 16. Choose"),
        ({'custom_hooks': [{**HOOK, 'rank': 17}]}, r"rank=17 .*which is \(32, 16\): .*1 to 16"),
        ({'custom_hooks': [{**HOOK, 'sparsity': CHOSEN}]}, r"names \['encoder.layers.7'\]"),
        (
            {'custom_hooks': [{**HOOK, 'sparsity': {'type': 'GroupTrial', 'steps': 3}}]},
            'Trials of 3 steps and 2 held-out batches do not fit into max_steps=4; .*at least 5',
        ),
        (
            {'custom_hooks': [{**HOOK, 'sparsity': {'type': 'GroupSelection'}}],
             'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.1}},
            "has the type 'SGD', but the sparsity reads the state of Adam or AdamW. Take",
        ),
        (
            {'custom_hooks': [{**HOOK, 'sparsity': {'type': 'GroupTrial', 'steps': 1}}],
             'train_cfg.method': {'type': 'mmforget.SCRUB'}},
            "weighs groups by the objective .*, but SCRUB's changes from step to step. Take",
        ),
        (
            {'train_cfg.method': {'type': 'mmforget.GSLoRA', 'forget_weight': [0.1, 0.2]},
             'train_cfg.scenario.tasks': [['bag'], ['coat'], ['dress']]},
            '2 forget weights.*task number 3',
        ),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_run(make_runner, tmp_path, overrides, message):
    refused(make_runner, tmp_path, ValueError, message, **overrides)


def test_a_loss_that_the_family_cannot_give(make_runner, tmp_path, monkeypatch):
    def check(tap, options):
        if options.true_class_only:
            raise TypeError('no true_class_only here')

    monkeypatch.setattr(DeformableDETRTap, 'check', check)
    overrides = {'train_cfg.method': {'type': 'mmforget.GSLoRA', 'true_class_only': True}}
    refused(make_runner, tmp_path, TypeError, 'no true_class_only here', **overrides)


def test_a_pipeline_that_mixes_images(make_runner, tmp_path):
    mosaic = {'type': 'CachedMosaic', 'img_scale': (64, 64)}
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        mosaic,
        {'type': 'PackDetInputs'},
    ]
    overrides = {'train_dataloader.dataset.pipeline': pipeline}
    refused(make_runner, tmp_path, ValueError, 'CachedMosaic, which mixes several', **overrides)


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the tiny data that may be spoilt, and the overrides that use it."""
    folder = tmp_path / 'data'
    shutil.copytree(tiny_data, folder)
    roots = {f'{split}_dataloader.dataset.data_root': str(folder) for split in ('train', 'val')}
    return folder, {**roots, 'val_evaluator.ann_file': str(folder / 'annotations/val.json')}


def spoil(folder, split, change):
    path = folder / 'annotations' / f'{split}.json'
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_without_categories(make_runner, tmp_path, data, split):
    folder, overrides = data
    spoil(folder, split, lambda document: document.pop('categories'))
    message = f'annotations/{split}.json has no categories: expected .*Give an annotation file'
    refused(make_runner, tmp_path / 'run', ValueError, message, **overrides)


def test_a_class_without_images(make_runner, tmp_path, data):
    folder, overrides = data

    def without_dress(document):
        ids = {c['id'] for c in document['categories'] if c['name'] == 'dress'}
        document['annotations'] = [
            a for a in document['annotations'] if a['category_id'] not in ids
        ]

    spoil(folder, 'train', without_dress)
    message = r"tasks\[1\] names the class 'dress', of which .*train.json holds no image"
    refused(make_runner, tmp_path / 'run', ValueError, message, **overrides)


def test_a_box_outside_its_image(make_runner, tmp_path, data):
    folder, overrides = data
    spoil(folder, 'train', lambda d: d['annotations'][3].update(bbox=[500, 5, 20, 20]))
    message = r'1 boxes lie outside.*bbox \[500, 5, 20, 20\] on .* 160 x 160 pixels.*Mend'
    refused(make_runner, tmp_path / 'run', ValueError, message, **overrides)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_missing_image(make_runner, tmp_path, data, split):
    folder, overrides = data
    for path in (folder / split).iterdir():
        path.unlink()
    message = f'{split}/.*does not exist; it is the first of .*{split}_dataloader needs'
    refused(make_runner, tmp_path / 'run', FileNotFoundError, message, **overrides)


@pytest.mark.parametrize(
    ('spoilt', 'message'),
    [
        (
            lambda state: {k: v for k, v in state.items() if not k.startswith('decoder.')},
            r'does not fit the detector.*\d+ tensors missing: decoder\.layers\.0.* and \d+ more',
        ),
        (
            lambda state: {**state, 'bbox_head.cls_branches.0.weight': torch.ones(80, 16)},
            r'1 tensors of another shape: bbox_head.*\(80, 16\) instead of \(10, 16\)',
        ),
        (
            lambda state: {**state, 'level_embed': state['level_embed'] / 0},
            'holds NaN or infinity in',
        ),
        (lambda state: {'epoch': 3}, "no detector's weights but a dict with the keys 'state_dict'"),
    ],
    ids=['missing', 'shape', 'infinite', 'none'],
)
def test_a_checkpoint_that_does_not_fit(make_runner, tiny_base, tmp_path, spoilt, message):
    state = torch.load(tiny_base, weights_only=True)['state_dict']
    torch.save({'state_dict': spoilt(state)}, tmp_path / 'spoilt.pth')
    refused(
        make_runner,
        tmp_path / 'run',
        ValueError,
        f'spoilt.pth .*{message}',
        load_from=str(tmp_path / 'spoilt.pth'),
    )


def test_a_file_that_is_no_checkpoint(make_runner, tmp_path):
    (tmp_path / 'page.pth').write_text('<!DOCTYPE html>')
    refused(
        make_runner,
        tmp_path / 'run',
        ValueError,
        'page.pth is no checkpoint.*DOCTYPE',
        load_from=str(tmp_path / 'page.pth'),
    )


def test_the_reference_of_another_detector(make_runner, tmp_path, tiny_base):
    """A base is taken from runs of the same checkpoint, measured alike."""
    shutil.copy(tiny_base, tmp_path / 'other.pth')
    first = make_runner(tmp_path / 'first', **{'train_cfg.max_steps': 1})
    first.train()
    base = str(tmp_path / 'first' / 'forgetting.json')
    again = make_runner(tmp_path / 'again', **{'train_cfg.base': base})
    assert (
        again.train_loop.base
        == json.loads((tmp_path / 'first' / 'forgetting.json').read_text())['base']
    )
    refused(
        make_runner, tmp_path / 'second', ValueError, 'is of a run with loaded_from=.*base.pth',
        **{'train_cfg.base': base, 'load_from': str(tmp_path / 'other.pth')},
    )  # fmt: skip
