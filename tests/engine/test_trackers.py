"""TensorBoard, W&B and MLflow through MMEngine's backends: one axis for the steps of all tasks."""

import json
import struct

import pytest

STEPS = list(range(1, 9))  # Two tasks of four steps.
HOOKS = [
    {'type': 'mmforget.GroupSparseLoRAHook', 'rank': 2},
    {'type': 'mmforget.ForgettingPicturesHook', 'images': 1},
]


@pytest.fixture
def track(make_runner, tmp_path):
    """Runs two tasks with a backend; ``track(type='...', ...)`` returns its folder."""

    def run(**backend):
        overrides = {
            'visualizer': {'type': 'DetLocalVisualizer', 'vis_backends': [backend]},
            'custom_hooks': HOOKS,
        }
        make_runner(tmp_path, **overrides).train()
        (folder,) = tmp_path.glob('*/vis_data')
        return folder

    return run


def test_tensorboard(track):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(track(type='TensorboardVisBackend'))).Reload()

    def steps(tag):
        return [event.step for event in events.Scalars(tag)]

    assert steps('loss') == steps('lr') == STEPS
    assert steps('coco/bbox_mAP') == [0, 4, 8]
    assert steps('coco/AP_r') == [4, 8]
    assert [event.step for event in events.Images('ap_curves.png')] == [4, 8]
    assert [event.step for event in events.Images('task_2_detections.png')] == [8]


def test_mlflow(track, tmp_path, monkeypatch):
    pytest.importorskip('mlflow')
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    uri = (tmp_path / 'mlruns').as_uri()
    track(type='MLflowVisBackend', exp_name='forgetting', tracking_uri=uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name('forgetting')
    (run,) = client.search_runs([experiment.experiment_id])

    def steps(name):
        return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]

    assert steps('loss') == steps('lr') == STEPS
    assert steps('coco/bbox_mAP') == [0, 4, 8]
    assert steps('coco/AP_r') == [4, 8]
    images = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {'ap_curves.png', 'task_2_detections.png'} <= images


def test_wandb(track, tmp_path, monkeypatch):
    """Offline; W&B counts steps itself, so its axis is the ``iter`` that each record carries."""
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    folder = track(
        type='WandbVisBackend',
        init_kwargs={'project': 'forgetting'},
        define_metric_cfg=[{'name': '*', 'step_metric': 'iter'}],
    )
    records = list(wandb_history(folder))

    def steps(name):
        return [record['iter'] for record in records if name in record]

    assert steps('loss') == steps('lr') == STEPS
    assert steps('coco/bbox_mAP') == [0, 4, 8]
    assert steps('coco/AP_r') == [4, 8]
    assert sum('ap_curves' in ' '.join(record) for record in records) == 2


def wandb_history(folder):
    """The records of an offline run, as W&B would upload them."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob('*.wandb')
    for data in leveldb_log(file.read_bytes(), header=7):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof('record_type') == 'history':
            yield {
                item.key or '/'.join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }


def leveldb_log(content, header, block=32768):
    """LevelDB's log format: pieces of records, each with checksum (4), length (2) and kind (1)."""
    whole, first, last = 1, 2, 4
    at, pieces = header, b''
    while at < len(content):
        left = block - at % block
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack('<HB', content[at + 4 : at + 7])
        piece = content[at + 7 : at + 7 + length]
        pieces = piece if kind in (whole, first) else pieces + piece
        if kind in (whole, last):
            yield pieces
        at += 7 + length
