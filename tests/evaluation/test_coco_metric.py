import copy
import json
import logging
import math
from dataclasses import asdict, fields
from uuid import uuid4

import mmengine.dist
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import DefaultScope

from mmforget.evaluation import ForgettingCocoMetric
from mmforget.evaluation import coco_metric as coco_metric_module
from mmforget.structures import ForgettingScenario, ForgettingTask, ProtocolResult

REQUESTS = [['cat', 'cup'], ['bus'], ['kite']]


def samples(data, detections=None, instances=False):
    """What the detector hands to the evaluator, one data sample per image."""
    found = []
    for image in data.coco['images']:
        predicted = (data.detections if detections is None else detections)[image['id']]
        sample = {
            'img_id': image['id'],
            'ori_shape': (image['height'], image['width']),
            'pred_instances': {key: torch.from_numpy(v) for key, v in predicted.items()},
        }
        if instances:
            sample['instances'] = [
                {
                    'bbox': [x, y, x + w, y + h],
                    'bbox_label': list(data.ids.values()).index(a['category_id']),
                    'ignore_flag': a['iscrowd'],
                }
                for a in data.coco['annotations']
                if a['image_id'] == image['id']
                for x, y, w, h in [a['bbox']]
            ]
        found.append(sample)
    return found


def evaluate(metric, data, detections=None, instances=False):
    metric.dataset_meta = {'classes': data.classes}
    found = samples(data, detections, instances)
    for sample in found:
        metric.process({}, [sample])
    return metric.evaluate(len(found))


def without(data, *names):
    """The detections of a detector that forgot these classes all the way."""
    labels = [data.classes.index(name) for name in names]
    return {
        img_id: {key: value[~np.isin(found['labels'], labels)] for key, value in found.items()}
        for img_id, found in data.detections.items()
    }


def worse(data, *names):
    """Detections in which the boxes of some classes are off by 25 %."""
    labels = [data.classes.index(name) for name in names]
    changed = copy.deepcopy(data.detections)
    for found in changed.values():
        boxes = found['bboxes']
        shift = 0.25 * (boxes[:, 2] - boxes[:, 0]) * np.isin(found['labels'], labels)
        boxes[:, [0, 2]] += shift[:, None].astype(np.float32)
    return changed


def as_coco(data, detections):
    return type(data)(
        data.coco, data.ann_file, data.classes, detections, data.ids
    ).coco_detections()


def set_pairs(data, reference, plain, sets, restricted):
    """(AP, AP50) by class for each set, the long way."""
    full = reference.class_ap(data.coco, plain)
    pairs = {}
    for letter, names in sets.items():
        found = full
        if restricted and names:
            found = reference.restricted_class_ap(data.coco, plain, names)
        pairs[letter] = {name: found[name] for name in names}
    return pairs


def near(value, expected):
    if expected is None:
        return value is None
    return value is not None and abs(value - expected) < 1e-12


@pytest.fixture
def metric(data):
    return ForgettingCocoMetric(ann_file=data.ann_file)


@pytest.fixture(scope='module')
def scenario(data):
    return ForgettingScenario.from_requests(REQUESTS, data.classes)


@pytest.fixture(scope='module')
def base(data, scenario):
    metric = ForgettingCocoMetric(ann_file=data.ann_file)
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data)
    return metric.base


@pytest.fixture
def records(request):
    """What goes through MMLogger: one of this test's own, whatever level earlier runs left."""
    found = []
    handler = logging.Handler()
    handler.emit = found.append
    MMLogger.get_instance(f'{request.node.name}_{uuid4()}').addHandler(handler)
    return found


# The loaded detector.


def test_base_is_the_reference_under_both_protocols(data, reference, scenario, base):
    plain = data.coco_detections()
    full = reference.class_ap(data.coco, plain)
    for block, which in (('per_class', 0), ('per_class_AP50', 1)):
        assert list(base[block]) == list(data.classes)
        for name, value in base[block].items():
            assert near(value, full[name] and full[name][which]), name
    assert near(base['full']['AP'], reference.mean(full))
    assert near(base['full']['AP50'], reference.mean(full, 1))
    assert list(base['restricted']) == ['task_1', 'task_2', 'task_3']
    for task in scenario.tasks:
        found = base['restricted'][task.name]
        assert found['classes'] == list(task.classes)
        sets = {'f': task.classes, 'r': task.retained, 'o': task.forgotten}
        for letter, pairs in set_pairs(data, reference, plain, sets, restricted=True).items():
            assert near(found[f'AP_{letter}'], reference.mean(pairs)), (task.name, letter)
            assert near(found[f'AP50_{letter}'], reference.mean(pairs, 1))


def test_base_pass_logs_the_usual_metrics_only(data, scenario, metric):
    metric.begin(scenario)
    metric.set_task(None)
    found = evaluate(metric, data)
    assert found == evaluate(CocoMetric(ann_file=data.ann_file), data)
    assert metric.last is None


def test_base_survives_json(data, scenario, base):
    again = json.loads(json.dumps(base))
    assert again == base
    rows = []
    for reference in (base, again):
        metric = ForgettingCocoMetric(ann_file=data.ann_file)
        metric.begin(scenario, base=reference)
        metric.set_task(scenario.tasks[1])
        evaluate(metric, data, without(data, 'bus'))
        rows.append(metric.last)
    assert rows[0] == rows[1]


# A run of two tasks.


def test_two_tasks(data, reference, metric):
    scenario = ForgettingScenario.from_requests(REQUESTS, data.classes, missing=['dog'])
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data)
    plain_before = data.coco_detections()
    for task, detections in (
        (scenario.tasks[0], worse(data, 'cat', 'cup')),
        (scenario.tasks[1], worse(data, 'cat', 'cup', 'bus', 'dog')),
    ):
        metric.set_task(task)
        assert metric.last is None
        logged = evaluate(metric, data, detections)
        plain = as_coco(data, detections)
        sets = {'f': task.classes, 'r': task.retained, 'o': task.forgotten, 'm': ('dog',)}
        for protocol, found in (('', metric.last.full), ('restricted/', metric.last.restricted)):
            pairs_before, pairs_after = (
                set_pairs(data, reference, source, sets, restricted=bool(protocol))
                for source in (plain_before, plain)
            )
            for which, ap, head in ((0, 'AP', ''), (1, 'AP50', 'AP50_')):
                before, after = (
                    {letter: reference.mean(values, which) for letter, values in pairs.items()}
                    for pairs in (pairs_before, pairs_after)
                )
                drop = before['f'] - after['f']
                assert drop > 0
                expected = {
                    f'{ap}_f': after['f'],
                    f'{ap}_r': after['r'],
                    f'{ap}_o': after['o'],
                    f'{head}drop': drop,
                    f'{head}H': 2 * after['r'] * drop / (after['r'] + drop),
                    f'{head}H_ceiling': 2 * before['r'] * before['f'] / (before['r'] + before['f']),
                    f'{ap}_r_relative': after['r'] / before['r'],
                    f'{ap}_m': after['m'],
                    f'{ap}_m_relative': after['m'] / before['m'],
                }
                for name, value in expected.items():
                    assert near(getattr(found, name), value), (task.name, protocol, name)
                    assert near(logged.get(f'coco/{protocol}{name}'), value)
        after = reference.class_ap(data.coco, plain)
        for name, (ap_before, ap_after) in metric.last.per_class.items():
            assert ap_before == metric.base['per_class'][name]
            assert near(ap_after, after[name] and after[name][0])
        assert metric.last.per_class_AP50['dog'][1] == pytest.approx(after['dog'][1], abs=1e-12)
    assert all(isinstance(value, float) and math.isfinite(value) for value in logged.values())
    assert {f.name for f in fields(ProtocolResult)} <= {k.removeprefix('coco/') for k in logged}


def test_old_set_appears_with_the_second_task_only(data, scenario, base, metric):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[0])
    assert 'coco/AP_o' not in evaluate(metric, data)
    assert metric.last.full.AP_o is None
    metric.set_task(scenario.tasks[1])
    logged = evaluate(metric, data)
    assert near(logged['coco/AP_o'], (base['per_class']['cat'] + base['per_class']['cup']) / 2)


def test_nothing_changed_is_no_forgetting(data, scenario, base, metric):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[0])
    evaluate(metric, data)
    for found in (metric.last.full, metric.last.restricted):
        assert found.drop == found.H == found.AP50_H == 0
        assert found.AP_r_relative == 1
        assert found.H_ceiling > 0


def test_total_forgetting_of_the_set_reaches_the_ceiling(data, scenario, base, metric):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[0])
    evaluate(metric, data, without(data, 'cat', 'cup'))
    for found in (metric.last.full, metric.last.restricted):
        assert found.AP_f == 0 and found.drop > 0
        assert found.H == pytest.approx(found.H_ceiling, abs=1e-12)


def test_no_detections_at_all(data, scenario, base, metric):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[0])
    logged = evaluate(metric, data, without(data, *data.classes))
    assert logged['coco/bbox_mAP'] == 0
    assert metric.last.full.AP_f == metric.last.full.AP_r == metric.last.full.H == 0
    assert metric.last.restricted.AP_f == metric.last.restricted.AP50_r == 0
    assert metric.last.full.drop == pytest.approx(
        (base['per_class']['cat'] + base['per_class']['cup']) / 2
    )
    for name, (before, after) in metric.last.per_class.items():
        assert (before is None) == (after is None) == (name in (data.never_shown, data.crowds_only))
        assert after in (0, None)


def test_set_without_ground_truth_is_undefined(data, scenario, base, metric):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[2])
    logged = evaluate(metric, data)
    assert metric.last.full.AP_f is metric.last.full.drop is metric.last.full.H is None
    assert metric.last.restricted.AP_f is None and metric.last.restricted.AP_r > 0
    assert 'coco/H' not in logged and 'coco/AP_r' in logged


def test_restricted_can_be_left_out(data, scenario):
    metric = ForgettingCocoMetric(ann_file=data.ann_file, restricted=False)
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data)
    assert metric.base['restricted'] == {}
    metric.set_task(scenario.tasks[0])
    logged = evaluate(metric, data)
    assert metric.last.restricted is None and metric.last.full.drop == 0
    assert not any('restricted' in key for key in logged)


def test_ground_truth_without_a_file(data, scenario, base):
    metric = ForgettingCocoMetric()
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data, instances=True)
    # Areas and category ids are rebuilt from the boxes, AP over all areas is the same.
    for name, value in metric.base['per_class'].items():
        expected = base['per_class'][name]
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-9))
    metric.set_task(scenario.tasks[0])
    evaluate(metric, data, without(data, 'cat', 'cup'), instances=True)
    assert metric.last.full.AP_f == 0


def test_other_processes_learn_the_scores(data, scenario, monkeypatch):
    """Only the main process computes; the others get what it found."""
    sent = []
    main = ForgettingCocoMetric(ann_file=data.ann_file)
    other = ForgettingCocoMetric(ann_file=data.ann_file)
    for metric in (main, other):
        metric.begin(scenario)
        metric.set_task(None)
    monkeypatch.setattr('mmengine.evaluator.metric.broadcast_object_list', sent.append)
    monkeypatch.setattr(coco_metric_module, 'broadcast_object_list', lambda x: sent.append(x[:]))
    logged = evaluate(main, data)

    def receive(values):
        values[:] = sent.pop(0)

    monkeypatch.setattr('mmengine.evaluator.metric.broadcast_object_list', receive)
    monkeypatch.setattr('mmengine.evaluator.metric.is_main_process', lambda: False)
    monkeypatch.setattr(coco_metric_module, 'broadcast_object_list', receive)
    assert evaluate(other, data) == logged
    assert other.base == main.base and other.base is not None
    assert not mmengine.dist.is_distributed()


# Logs.


def test_table_shows_before_after_and_role(data, scenario, base, metric, records):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[1])
    evaluate(metric, data, without(data, 'bus'))
    text = '\n'.join(record.getMessage() for record in records)
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
    assert ['class', 'role', 'AP before', 'AP after', 'AP50 before', 'AP50 after'] in rows
    ap, ap50 = base['per_class'], base['per_class_AP50']
    assert ['bus', 'f', f'{ap["bus"]:.4f}', '0.0000', f'{ap50["bus"]:.4f}', '0.0000'] in rows
    assert ['cat', 'o', *[f'{ap["cat"]:.4f}'] * 2, *[f'{ap50["cat"]:.4f}'] * 2] in rows
    assert ['ghost', 'r', '-', '-', '-', '-'] in rows
    assert 'Average Precision' in text


def test_pycocotools_does_not_print(data, scenario, base, metric, capsys):
    metric.begin(scenario, base=base)
    metric.set_task(scenario.tasks[0])
    capsys.readouterr()
    evaluate(metric, data)
    printed = capsys.readouterr().out
    assert 'DONE' not in printed and 'index' not in printed


# Alone.


def test_without_scenario_it_is_cocometric(data, metric):
    found = evaluate(metric, data)
    assert found == evaluate(CocoMetric(ann_file=data.ann_file), data)
    assert 'coco/bbox_mAP' in found
    assert metric.base is None and metric.last is None


def test_alone_with_a_base_file(data, scenario, base, tmp_path, metric):
    path = tmp_path / 'forgetting.json'
    path.write_text(json.dumps({'schema': 1, 'base': base, 'tasks': []}))
    detections = without(data, 'bus')
    for task in (1, None):
        alone = ForgettingCocoMetric(
            ann_file=data.ann_file,
            scenario={'tasks': REQUESTS, 'name': 'ignored'},
            task=task,
            base=str(path),
        )
        logged = evaluate(alone, data, detections)
        metric.begin(scenario, base=base)
        metric.set_task(scenario.tasks[2 if task is None else task])
        assert logged == evaluate(metric, data, detections)
        assert asdict(alone.last) == asdict(metric.last)


def test_alone_without_base_warns_once(data, records):
    alone = ForgettingCocoMetric(ann_file=data.ann_file, scenario={'tasks': REQUESTS}, task=0)
    logged = evaluate(alone, data)
    evaluate(alone, data)
    assert logged['coco/AP_f'] > 0 and logged['coco/restricted/AP_r'] > 0
    assert not {'coco/drop', 'coco/H', 'coco/H_ceiling', 'coco/AP_r_relative'} & set(logged)
    assert alone.last.per_class['dog'][0] is None and alone.last.per_class['dog'][1] > 0
    warnings = [r for r in records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and 'base=' in warnings[0].getMessage()


def test_base_without_restricted_references(data, base, scenario, metric, records):
    metric.begin(scenario, base=base | {'restricted': {}})
    metric.set_task(scenario.tasks[0])
    evaluate(metric, data)
    assert metric.last.full.drop == 0 and metric.last.restricted.drop is None
    assert any('restricted protocol' in r.getMessage() for r in records)


# Built from a config.


def test_config_that_overrides_cocometric(data, tmp_path):
    """A plugin config names our type; the keys of MMDetection's config are merged in."""
    original = tmp_path / 'original.py'
    original.write_text(
        "default_scope = 'mmdet'\n"
        f"val_evaluator = dict(type='CocoMetric', ann_file={data.ann_file!r}, metric='bbox',\n"
        '    format_only=False, classwise=True, backend_args=None)\n'
        'test_evaluator = val_evaluator\n'
    )
    ours = tmp_path / 'ours.py'
    ours.write_text(
        "_base_ = ['original.py']\n"
        f'scenario = dict(tasks={REQUESTS!r})\n'
        "val_evaluator = dict(type='mmforget.ForgettingCocoMetric')\n"
        "test_evaluator = dict(type='mmforget.ForgettingCocoMetric', scenario=scenario, task=1)\n"
    )
    config = Config.fromfile(ours)
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = ROOT_METRICS.build(config.val_evaluator)
        assert type(metric) is ForgettingCocoMetric and metric.classwise
        evaluator = Evaluator(config.test_evaluator)
    evaluator.dataset_meta = {'classes': data.classes}
    found = samples(data)
    evaluator.process(found)
    logged = evaluator.evaluate(len(found))
    assert logged['coco/AP_f'] > 0 and logged['coco/AP_o'] > 0
    assert logged['coco/dog_precision'] > 0 and 'coco/ghost_precision' not in logged


# CocoMetric's arguments.


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        {'metric_items': ['mAP', 'mAP_75', 'AR@100']},
        {'proposal_nums': (1, 10, 100)},
        {'sort_categories': True, 'classwise': True},
        {'iou_thrs': [0.5, 0.75]},
        {'metric': ['bbox', 'proposal']},
        {'prefix': 'val'},
    ],
    ids=str,
)
def test_usual_numbers_are_those_of_cocometric(data, scenario, arguments):
    metric = ForgettingCocoMetric(ann_file=data.ann_file, **arguments)
    metric.begin(scenario)
    metric.set_task(None)
    found = evaluate(metric, data)
    if 'iou_thrs' in arguments:
        arguments = arguments | {'iou_thrs': np.array(arguments['iou_thrs'])}
    expected = evaluate(CocoMetric(ann_file=data.ann_file, **arguments), data)
    # nan, CocoMetric's number for a class without objects, is left out.
    assert found == {k: v for k, v in expected.items() if not math.isnan(v)}
    assert metric.metrics == CocoMetric(**arguments).metrics


def test_classwise_names_follow_the_file(data, reference, scenario, records):
    """Here the file's categories are not sorted by id: CocoMetric would mix the names up."""
    metric = ForgettingCocoMetric(ann_file=data.ann_file, classwise=True)
    metric.begin(scenario)
    metric.set_task(None)
    logged = evaluate(metric, data)
    for name, pair in reference.class_ap(data.coco, data.coco_detections()).items():
        assert logged.get(f'coco/{name}_precision') == (pair and round(pair[0], 3))
    text = '\n'.join(record.getMessage() for record in records)
    assert any('category' in line and 'mAP_s' in line for line in text.splitlines())


def test_multiprocessing_evaluation(data, scenario, base):
    metric = ForgettingCocoMetric(ann_file=data.ann_file, use_mp_eval=True)
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data)
    assert metric.base == base


def test_iou_thresholds_without_one_half(data, scenario):
    metric = ForgettingCocoMetric(ann_file=data.ann_file, iou_thrs=0.75)
    metric.begin(scenario)
    metric.set_task(None)
    evaluate(metric, data)
    metric.set_task(scenario.tasks[0])
    logged = evaluate(metric, data)
    assert metric.last.full.AP_f > 0 and metric.last.full.AP50_f is None
    assert metric.last.restricted.AP50_r is None
    assert not any('AP50' in key for key in logged)


def test_outfile_and_format_only(data, tmp_path):
    scores = ForgettingCocoMetric(
        ann_file=data.ann_file,
        scenario={'tasks': REQUESTS},
        outfile_prefix=str(tmp_path / 'scored'),
    )
    assert evaluate(scores, data)['coco/AP_r'] > 0
    assert json.loads((tmp_path / 'scored.bbox.json').read_text())
    only = ForgettingCocoMetric(
        ann_file=data.ann_file,
        scenario={'tasks': REQUESTS},
        format_only=True,
        outfile_prefix=str(tmp_path / 'only'),
    )
    assert evaluate(only, data) == {}
    assert (tmp_path / 'only.bbox.json').exists() and only.last is None


# Mistakes.


def test_loop_cannot_score_with_format_only(data, scenario, tmp_path):
    metric = ForgettingCocoMetric(
        ann_file=data.ann_file, format_only=True, outfile_prefix=str(tmp_path / 'x')
    )
    with pytest.raises(ValueError, match='format_only'):
        metric.begin(scenario)


def test_boxes_must_be_asked_for(data, scenario):
    with pytest.raises(ValueError, match="needs 'bbox'"):
        ForgettingCocoMetric(ann_file=data.ann_file, metric='segm').begin(scenario)
    with pytest.raises(ValueError, match="needs 'bbox'"):
        ForgettingCocoMetric(metric=['proposal'], scenario={'tasks': REQUESTS})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'task': 1}, 'no scenario'),
        ({'base': 'somewhere.json'}, 'no scenario'),
        ({'scenario': {'classes': []}}, 'needs "tasks"'),
        ({'scenario': {'tasks': REQUESTS}, 'task': 3}, 'one of the 3 tasks'),
        ({'scenario': {'tasks': REQUESTS}, 'task': -1}, 'counted from 0'),
        ({'scenario': {'tasks': REQUESTS}, 'proposal_nums': (100,)}, 'three numbers'),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        ForgettingCocoMetric(**arguments)


def test_base_file_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'missing\.json'):
        ForgettingCocoMetric(scenario={'tasks': REQUESTS}, base=str(tmp_path / 'missing.json'))
    (tmp_path / 'other.json').write_text('{"tasks": []}')
    with pytest.raises(ValueError, match='no "base" block'):
        ForgettingCocoMetric(scenario={'tasks': REQUESTS}, base=str(tmp_path / 'other.json'))


def test_classes_are_checked_before_the_first_batch(data, scenario, base):
    metric = ForgettingCocoMetric(ann_file=data.ann_file, scenario={'tasks': [['unicorn']]})
    with pytest.raises(ValueError, match='unicorn'):
        metric.dataset_meta = {'classes': data.classes}

    metric = ForgettingCocoMetric(ann_file=data.ann_file)
    metric.begin(scenario)
    with pytest.raises(ValueError, match='only one of them has ghost'):
        metric.dataset_meta = {'classes': data.classes[:-1]}
    with pytest.raises(ValueError, match='order differs'):
        metric.dataset_meta = {'classes': data.classes[::-1]}

    metric = ForgettingCocoMetric(ann_file=data.ann_file)
    metric.dataset_meta = {'classes': data.classes}
    with pytest.raises(ValueError, match='only one of them has ghost'):
        metric.begin(ForgettingScenario.from_requests([['cat']], data.classes[:-1]))
    wider = (*data.classes, 'tram')
    metric = ForgettingCocoMetric(ann_file=data.ann_file, scenario={'tasks': [['cat']]})
    with pytest.raises(ValueError, match='no category for the classes tram'):
        metric.dataset_meta = {'classes': wider}


def test_base_of_another_scenario(data, scenario, base, metric):
    metric.dataset_meta = {'classes': data.classes}
    with pytest.raises(ValueError, match='task_1 forgets cat, cup, here it forgets dog'):
        metric.begin(ForgettingScenario.from_requests([['dog']], data.classes), base=base)
    part = {k: v for k, v in base['per_class'].items() if k != 'fork'}
    with pytest.raises(ValueError, match='no per_class for the classes fork'):
        metric.begin(scenario, base=base | {'per_class': part})


def test_tasks_need_begin_and_must_belong(data, scenario, metric):
    with pytest.raises(RuntimeError, match='before begin'):
        metric.set_task(None)
    metric.begin(scenario)
    with pytest.raises(ValueError, match='not a task of the scenario'):
        metric.set_task(ForgettingTask(0, ('dog',), ('cat',), ()))
