"""The forgetting config that an ordinary config becomes."""

import copy

import pytest
from mmengine.config import Config

from mmforget.apis import ForgettingRequest, build_forgetting_config, load_config
from mmforget.apis.data_configs import class_names, still_pipeline, unwrap_dataset
from mmforget.apis.forgetting_config import build_evaluation_config
from mmforget.apis.recipes import MANY_TO_ONE, SET_PREDICTION, recipe_for

REQUEST = ForgettingRequest([['bag', 'sneaker'], ['dress']])


def build(config, request=REQUEST, **arguments):
    return build_forgetting_config(config, 'base.pth', request, **arguments)


def types(pipeline):
    return [transform['type'] for transform in pipeline]


def test_the_users_config_is_not_changed(ordinary):
    before = copy.deepcopy(ordinary.to_dict())
    build(ordinary, data_root='/elsewhere', cfg_options={'randomness.seed': 5})
    assert ordinary.to_dict() == before


def test_the_recipe_is_that_of_the_demo(ordinary):
    """Every value of the Garments config; only how often it may be seen differs by batch size."""
    from pathlib import Path

    path = Path(__file__).parents[2] / 'configs/garments'
    demo = Config.fromfile(path / 'gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py')
    tasks = demo.train_cfg.scenario.tasks
    built = build(ordinary, ForgettingRequest(tasks)).config
    for key in ('type', 'max_steps', 'method', 'trunk_cache_mb'):
        assert built.train_cfg[key] == demo.train_cfg[key], key
    for stream in ('forget', 'retain'):
        expected = demo.train_cfg.scenario[stream]
        sampling = built.train_cfg.scenario[stream]
        assert sampling.images == expected.images
        assert sampling.get('recurring', False) == expected.get('recurring', False)
    assert built.train_cfg.scenario.tasks == tasks
    assert built.optim_wrapper == demo.optim_wrapper
    assert built.param_scheduler == demo.param_scheduler
    assert built.randomness == demo.randomness
    expected, hook = demo.custom_hooks[0], built.custom_hooks[-2]
    assert built.custom_hooks[-1] == demo.custom_hooks[-1]
    assert {k: hook[k] for k in ('type', 'rank', 'targets')} == {
        k: expected[k] for k in ('type', 'rank', 'targets')
    }
    assert {k: hook.sparsity[k] for k in expected.sparsity} == expected.sparsity
    loader = build(Config.fromfile(path / 'deformable-detr_mobilenetv2_3k_garments.py')).config
    assert loader.train_dataloader.batch_size == demo.train_cfg.scenario.retain.get(
        'batch_size', demo.scenario.retain.batch_size
    )


def test_model_and_data_are_the_users(ordinary):
    built = build(ordinary)
    config = built.config
    assert config.model == ordinary.model
    assert config.load_from == 'base.pth' and config.resume is False
    dataset = config.train_dataloader.dataset
    assert dataset.type == 'CocoDataset'
    assert dataset.ann_file == ordinary.train_dataloader.dataset.dataset.ann_file
    assert config.train_dataloader.batch_size == 2  # The user's detector may be large.
    assert 'batch_sampler' not in config.train_dataloader
    assert 'auto_scale_lr' not in config and 'test_dataloader' not in config
    assert config.custom_imports.imports == ['mmforget']
    assert built.classes[:2] == ('t-shirt', 'trouser')
    assert any('RepeatDataset was taken off' in note for note in built.notes)


def test_training_images_are_those_of_validation_with_their_boxes(ordinary):
    pipeline = build(ordinary).config.train_dataloader.dataset.pipeline
    assert types(pipeline) == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']
    assert pipeline[-1] == {'type': 'PackDetInputs'}
    same = build(ordinary, evaluate=False).config.train_dataloader.dataset.pipeline
    assert same == pipeline


def test_boxes_are_loaded_before_images_are_resized():
    """MMDetection's validation pipelines load them afterwards, in the original image's pixels."""
    still = still_pipeline(
        [
            {'type': 'LoadImageFromFile'},
            {'type': 'mmdet.Resize', 'scale': (9, 9)},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'PackDetInputs', 'meta_keys': ('img_id',)},
        ]
    )
    assert types(still) == ['LoadImageFromFile', 'LoadAnnotations', 'mmdet.Resize', 'PackDetInputs']
    assert still_pipeline([{'type': 'LoadImageFromFile'}, {'type': 'RandomFlip'}]) is None
    assert still_pipeline(None) is None


def test_augmentation_stays_where_there_is_nothing_else(ordinary):
    ordinary.val_dataloader = ordinary.val_evaluator = ordinary.val_cfg = None
    built = build(ordinary)
    assert 'RandomFlip' in types(built.config.train_dataloader.dataset.pipeline)
    assert any('kept with its augmentation' in note for note in built.notes)
    assert any('no validation data: nothing is measured' in note for note in built.notes)
    assert not {'val_dataloader', 'val_evaluator', 'val_cfg'} & set(built.config.keys())


def test_the_metric_keeps_what_cocometric_was_told(ordinary):
    metric = build(ordinary).config.val_evaluator
    assert metric.type == 'mmforget.ForgettingCocoMetric'
    assert metric.ann_file == ordinary.val_evaluator.ann_file
    assert metric.metric == 'bbox' and 'format_only' not in metric


def test_options_of_the_data_come_first(ordinary):
    """What they change is seen by all that is built from it."""
    options = {
        'val_evaluator.ann_file': 'other.json',
        'val_evaluator.restricted': False,
        'train_dataloader.dataset.dataset.ann_file': 'mine.json',
        'train_dataloader.dataset.pipeline': [{'type': 'LoadImageFromFile'}],
        'train_cfg.max_steps': 7,
    }
    config = build(ordinary, cfg_options=options).config
    assert config.val_evaluator.ann_file == 'other.json' and not config.val_evaluator.restricted
    dataset = config.train_dataloader.dataset
    assert dataset.type == 'CocoDataset' and dataset.ann_file == 'mine.json'
    assert types(dataset.pipeline) == ['LoadImageFromFile']
    assert config.train_cfg.max_steps == 7


def test_several_validation_sets_without_one_file_are_not_measured(ordinary):
    part = ordinary.val_dataloader.dataset
    ordinary.val_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [part, part]}
    ordinary.val_evaluator = {'type': 'VOCMetric', 'metric': 'mAP'}
    built = build(ordinary)
    assert 'val_evaluator' not in built.config
    assert any('several data sets without one annotation file' in note for note in built.notes)


def test_another_metric_gives_way(ordinary):
    ordinary.val_evaluator = [{'type': 'VOCMetric', 'metric': 'mAP', 'eval_mode': '11points'}]
    ordinary.val_dataloader.dataset.ann_file = 'ImageSets/Main/test.txt'
    built = build(ordinary)
    assert 'ann_file' not in built.config.val_evaluator
    assert 'eval_mode' not in built.config.val_evaluator
    assert 'instances' in built.config.val_dataloader.dataset.pipeline[-1].meta_keys
    assert any('VOCMetric gave way' in note for note in built.notes)


def test_conflicting_hooks_go_and_the_others_stay(ordinary):
    built = build(ordinary)
    assert types(built.config.custom_hooks) == [
        *('NumClassCheckHook', 'mmforget.GroupSparseLoRAHook', 'mmforget.ForgettingPicturesHook')
    ]
    assert any('EMAHook of the config was dropped: it pairs' in note for note in built.notes)
    assert 'save_best' not in built.config.default_hooks.checkpoint
    again = build(built.config)
    assert types(again.config.custom_hooks) == types(built.config.custom_hooks)


def test_few_steps_leave_less_room_for_trials(ordinary):
    def sparsity(steps):
        hooks = build(ordinary, ForgettingRequest(['bag'], steps=steps)).config.custom_hooks
        return hooks[-2].sparsity

    assert sparsity(80).steps == 8
    assert sparsity(5).steps == 3 and sparsity(5).held_out == 2
    assert sparsity(2) is None


@pytest.mark.parametrize(
    ('name', 'recipe'),
    [
        ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', SET_PREDICTION),
        ('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', SET_PREDICTION),
        ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', MANY_TO_ONE),
        ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', MANY_TO_ONE),
    ],
)
def test_the_family_decides_on_the_recipe(name, recipe):
    train_cfg = build(load_config(name), ForgettingRequest(['truck'])).config.train_cfg
    assert train_cfg.max_steps == recipe.steps
    assert train_cfg.method.forget_weight == recipe.forget_weight
    assert train_cfg.method.get('bound_each', False) is recipe.bound_each
    request = ForgettingRequest(['truck'], steps=7)
    assert build(load_config(name), request).config.train_cfg.max_steps == 7


@pytest.mark.parametrize(
    ('trained', 'forgets'),
    [
        ('fcos_mobilenetv2_2k', 'gs-lora_fcos_mobilenetv2_400s'),
        ('mask-rcnn_mobilenetv2_2k', 'gs-lora_mask-rcnn_mobilenetv2_400s'),
        ('faster-rcnn_mimdet-vit-sfp_2k', 'gs-lora_faster-rcnn_mimdet-vit-sfp_400s'),
    ],
)
def test_the_longer_recipe_is_that_of_the_configs(trained, forgets):
    from pathlib import Path

    path = Path(__file__).parents[2] / 'configs/garments'
    expected = Config.fromfile(path / f'{forgets}_garments-3tasks.py')
    request = ForgettingRequest(expected.train_cfg.scenario.tasks)
    built = build(Config.fromfile(path / f'{trained}_garments.py'), request).config
    assert built.train_cfg.max_steps == expected.train_cfg.max_steps
    assert built.train_cfg.method == expected.train_cfg.method
    assert built.custom_hooks[-2].sparsity == expected.custom_hooks[0].sparsity
    sampling, wanted = built.train_cfg.scenario, expected.train_cfg.scenario
    for stream in ('forget', 'retain'):
        for key in ('images', 'augmentations'):
            assert sampling[stream][key] == wanted[stream][key]
        assert sampling[stream].get('recurring', False) == wanted[stream].get('recurring', False)
        assert built.train_dataloader.batch_size == wanted[stream].batch_size
    # The scenes have their size already.
    pipeline = [t for t in built.train_dataloader.dataset.pipeline if t['type'] != 'Resize']
    assert [t['type'] for t in pipeline] == [
        t['type'] for t in expected.train_dataloader.dataset.pipeline
    ]
    assert built.val_evaluator.metric == expected.val_evaluator.get('metric', 'bbox')


def test_images_are_flipped_only_where_the_detector_was_trained_with_flips():
    config = load_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    pipeline = config.train_dataloader.dataset.pipeline
    types = [
        t.type
        for t in build(
            config, ForgettingRequest(['truck'])
        ).config.train_dataloader.dataset.pipeline
    ]
    assert types.index('RandomFlip') == types.index('LoadAnnotations') + 1
    config.train_dataloader.dataset.pipeline = [t for t in pipeline if t.type != 'RandomFlip']
    built = build(config, ForgettingRequest(['truck'])).config
    assert 'RandomFlip' not in [t.type for t in built.train_dataloader.dataset.pipeline]
    assert 'augmentations' not in built.train_cfg.scenario.retain
    assert 'augmentations' not in built.train_cfg.scenario.forget


def test_flips_of_what_mixes_images_count():
    config = load_config('mmdet::yolox/yolox_s_8xb8-300e_coco.py')
    assert 'RandomFlip' not in [t.type for t in config.train_dataloader.dataset.dataset.pipeline]
    built = build(config, ForgettingRequest(['truck'])).config
    assert 'RandomFlip' in [t['type'] for t in built.train_dataloader.dataset.pipeline]
    assert built.train_cfg.scenario.retain.augmentations == MANY_TO_ONE.variants
    assert built.train_cfg.scenario.forget.augmentations == 1


def test_a_detector_that_cannot_be_read_has_a_recipe():
    assert recipe_for({'type': 'NoSuchDetector'}) is SET_PREDICTION


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::detr/detr_r50_8xb2-150e_coco.py',
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    ],
)
def test_configs_of_mmdetection(name):
    built = build(load_config(name), ForgettingRequest([['truck'], ['dog']]), data_root='/coco')
    config = built.config
    assert config.train_cfg.method.true_class_only is True
    assert len(built.classes) == 80
    assert config.train_dataloader.dataset.data_root == '/coco'
    assert config.val_dataloader.dataset.data_root == '/coco'
    assert config.val_evaluator.ann_file == '/coco/annotations/instances_val2017.json'
    assert 'RandomFlip' not in types(config.train_dataloader.dataset.pipeline)


def test_options_come_last(ordinary):
    options = {'train_cfg.max_steps': 7, 'optim_wrapper.optimizer.lr': 1e-3}
    config = build(ordinary, cfg_options=options).config
    assert config.train_cfg.max_steps == 7
    assert config.optim_wrapper.optimizer.lr == 1e-3


def test_an_evaluation_config_has_no_training(ordinary):
    ordinary.test_dataloader.dataset.ann_file = 'annotations/test.json'
    config = build_evaluation_config(ordinary, 'test').config
    assert config.val_dataloader.dataset.ann_file == 'annotations/test.json'
    assert not {'train_cfg', 'train_dataloader', 'optim_wrapper'} & set(config.keys())
    with pytest.raises(ValueError, match="split is 'train'; expected 'val' or 'test'"):
        build_evaluation_config(ordinary, 'train')


# Wrappers.


def test_known_wrappers_come_off():
    plain = {'type': 'CocoDataset', 'ann_file': 'a.json'}
    balanced = {'type': 'ClassBalancedDataset', 'oversample_thr': 1e-3, 'dataset': plain}
    parts = {'type': 'ConcatDataset', 'datasets': [balanced, plain]}
    mixed = {'type': 'mmdet.MultiImageMixDataset', 'dataset': parts, 'pipeline': []}
    assert unwrap_dataset(mixed, 'x') == {'type': 'ConcatDataset', 'datasets': [plain, plain]}


def test_an_unknown_wrapper_is_refused(ordinary):
    inner = ordinary.train_dataloader.dataset.dataset
    ordinary.train_dataloader.dataset = {'type': 'MyMixture', 'dataset': inner}
    message = 'train_dataloader.dataset is a MyMixture.*RepeatDataset.*inner data set'
    with pytest.raises(ValueError, match=message):
        build(ordinary)


def test_mixed_images_need_a_pipeline_of_single_ones(ordinary):
    inner = ordinary.train_dataloader.dataset.dataset
    mosaic = {'type': 'MultiImageMixDataset', 'dataset': inner, 'pipeline': [{'type': 'Mosaic'}]}
    ordinary.train_dataloader.dataset = mosaic
    assert build(ordinary).config.train_dataloader.dataset.type == 'CocoDataset'
    ordinary.val_dataloader = None
    with pytest.raises(ValueError, match='MultiImageMixDataset, whose transforms mix images'):
        build(ordinary)


# Errors.


def test_no_training_data(ordinary):
    ordinary.train_dataloader = None
    with pytest.raises(ValueError, match='no model or no train_dataloader'):
        build(ordinary)


def test_several_roots_are_not_guessed(ordinary):
    ordinary.val_dataloader.dataset.data_root = '/other'
    with pytest.raises(ValueError, match=r'have: .*/other.*--cfg-options'):
        build(ordinary, data_root='/new')


def test_a_data_set_without_names():
    with pytest.raises(ValueError, match="'NoSuchDataset' is not registered.*custom_imports"):
        class_names({'type': 'NoSuchDataset'})


def test_loading(ordinary_file, tmp_path):
    assert load_config(ordinary_file).model.type == 'DeformableDETR'
    assert load_config(ordinary_file.parent).model.type == 'DeformableDETR'
    (ordinary_file.parent / 'second.py').write_text('')
    with pytest.raises(ValueError, match='exactly one dumped config. It holds: second.py, tiny.py'):
        load_config(ordinary_file.parent)
    with pytest.raises(FileNotFoundError, match=r"gone\.py' does not exist; expected a path"):
        load_config(tmp_path / 'gone.py')
    with pytest.raises(FileNotFoundError, match='expected package::folder/name.py'):
        load_config('mmdet::detr/gone.py')
