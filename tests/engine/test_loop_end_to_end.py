"""Two tasks through ``Runner.from_cfg(...).train()``: files, numbers, repeatability."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.structures import InstanceData

from mmforget.adapters import LoRALinear, apply_adapters, load_adapters
from mmforget.engine.results import read_results

ROW = {
    *('task', 'classes', 'steps', 'seconds', 'peak_memory_mb', 'trainable', 'trainable_share'),
    *('images', 'groups', 'full', 'restricted', 'per_class', 'batches_before'),
}
SCORES = {
    *('AP_f', 'AP_r', 'AP_o', 'drop', 'H', 'H_ceiling', 'AP_r_relative'),
    *('AP50_f', 'AP50_r', 'AP50_o', 'AP50_drop', 'AP50_H', 'AP50_H_ceiling', 'AP50_r_relative'),
    *('AP_m', 'AP_m_relative', 'AP50_m', 'AP50_m_relative'),
}


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def timeless(folder):
    document = read_results(folder / 'forgetting.json')
    for row in document['tasks']:
        assert row.pop('seconds') > 0
        assert row.pop('peak_memory_mb') > 0
    return document


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_files(reference_run):
    found = {str(p.relative_to(reference_run.work_dir)) for p in reference_run.work_dir.rglob('*')}
    wanted = {'task_1.pth', 'task_2.pth', 'forgetting.json', 'resume.pth', 'last_checkpoint'}
    for folder in ('task_1', 'task_2', 'cumulative'):
        wanted |= {f'adapters/{folder}/{name}' for name in ('adapter_config.json',)}
        wanted |= {f'adapters/{folder}/adapter_model.safetensors'}
    assert wanted <= found
    assert not [name for name in found if name.endswith('.tmp') or name.startswith(('iter', 'ep'))]
    last = (reference_run.work_dir / 'last_checkpoint').read_text()
    assert Path(last) == reference_run.work_dir / 'resume.pth'


def test_results_file_has_the_schema(reference_run):
    document = json.loads((reference_run.work_dir / 'forgetting.json').read_text())
    assert set(document) == {'schema', 'run', 'base', 'tasks'} and document['schema'] == 1
    assert set(document['base']) == {'per_class', 'per_class_AP50', 'full', 'restricted'}
    run = document['run']
    assert run['method']['type'] == 'mmforget.GSLoRA' and run['trainable']['rank'] == 2
    assert run['max_steps'] == 4 and set(run['batch_sizes']) == {'forget', 'retain'}
    first, second = document['tasks']
    for row in (first, second):
        assert set(row) == ROW
        assert set(row['full']) == set(row['restricted']) == SCORES
        assert row['steps'] == 4
        # Two layers of encoder and decoder each, two linears each, 16 <-> 32 with rank 2.
        assert row['trainable'] == 2 * 2 * 2 * 2 * (16 + 32)
        assert set(row['groups']) == {
            f'{p}.layers.{i}' for p in ('encoder', 'decoder') for i in (0, 1)
        }
        assert all(norm > 0 for norm in row['groups'].values())
        assert len(row['per_class']) == 10
        assert all(len(pair) == 2 for pair in row['per_class'].values())
    assert (first['task'], second['task']) == (1, 2)
    assert (first['classes'], second['classes']) == (['bag', 'sneaker'], ['dress'])
    assert first['full']['AP_o'] is None and second['full']['AP_o'] is not None
    plain = sum(p.numel() for p in reference_run.model.parameters())
    assert first['trainable_share'] == pytest.approx(768 / plain)


def test_group_norms_are_those_of_the_saved_adapters(reference_run):
    """The norm of a group is the root of the sum of its layers' squared updates."""
    document = json.loads((reference_run.work_dir / 'forgetting.json').read_text())
    for row in document['tasks']:
        squares = {}
        folder = reference_run.work_dir / 'adapters' / f'task_{row["task"]}'
        for name, entry in load_adapters(folder).items():
            block = '.'.join(name.split('.')[:3])
            squares[block] = squares.get(block, 0) + entry.delta().square().sum().item()
        assert row['groups'] == pytest.approx({k: v**0.5 for k, v in squares.items()}, rel=1e-4)


def test_adapters_name_their_base(reference_run, tiny_base):
    bases = {}
    for folder in ('task_1', 'task_2', 'cumulative'):
        path = reference_run.work_dir / 'adapters' / folder / 'adapter_config.json'
        bases[folder] = json.loads(path.read_text())['base_model_name_or_path']
    assert bases == {
        'task_1': str(tiny_base),
        'task_2': 'task_1.pth',
        'cumulative': str(tiny_base),
    }


def test_cumulative_adapters_give_the_last_detector(reference_run, build_tiny, tiny_base):
    """By our own arithmetic and by peft's, on the weights that were loaded at the start."""
    peft = pytest.importorskip('peft')
    folder = reference_run.work_dir / 'adapters' / 'cumulative'
    want = weights(reference_run.work_dir / 'task_2.pth')
    base = weights(tiny_base)
    moved = [k for k in base if not torch.equal(base[k], want[k])]
    assert len(moved) == 8

    ours = build_tiny(seed=1)
    ours.load_state_dict(base)
    theirs = copy.deepcopy(ours)
    apply_adapters(ours, load_adapters(folder))
    theirs = peft.PeftModel.from_pretrained(theirs, str(folder)).merge_and_unload()
    for model in (ours, theirs):
        state = model.state_dict()
        assert state.keys() == want.keys()
        for key, value in want.items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=1e-5)


def test_task_adapters_lead_from_one_checkpoint_to_the_next(reference_run, build_tiny):
    model = build_tiny(seed=1)
    model.load_state_dict(weights(reference_run.work_dir / 'task_1.pth'))
    apply_adapters(model, load_adapters(reference_run.work_dir / 'adapters' / 'task_2'))
    assert same(model.state_dict(), weights(reference_run.work_dir / 'task_2.pth'))


def test_same_seed_same_bits(reference_run, make_runner, tmp_path):
    make_runner(tmp_path).train()
    assert same(weights(tmp_path / 'task_2.pth'), weights(reference_run.work_dir / 'task_2.pth'))
    assert timeless(tmp_path) == timeless(reference_run.work_dir)


def test_another_seed_gives_another_detector(reference_run, make_runner, tmp_path):
    make_runner(tmp_path, **{'randomness.seed': 4}).train()
    assert not same(
        weights(tmp_path / 'task_2.pth'), weights(reference_run.work_dir / 'task_2.pth')
    )
    ours, theirs = timeless(tmp_path), timeless(reference_run.work_dir)
    assert ours['base'] == theirs['base']
    assert ours['tasks'][0]['groups'] != theirs['tasks'][0]['groups']


class Injection(Hook):
    """Runs the detector just before each task's first step and keeps what it gave."""

    def __init__(self, probe):
        self.probe = probe
        self.seen = []

    def before_forgetting_task(self, runner, task):
        adapters = [m for m in runner.model.modules() if isinstance(m, LoRALinear)]
        self.seen.append((len(adapters), self.probe(runner.model)))


def test_injection_leaves_the_outputs_alone(
    make_runner, build_tiny, tiny_base, tiny_batch, tmp_path
):
    """Predictions and losses in eval mode are the same bits with fresh adapters as without."""
    batch = tiny_batch(2)

    def probe(model):
        training = model.training
        model.eval()
        with torch.no_grad():
            data = model.data_preprocessor(copy.deepcopy(batch), False)
            found = model.predict(*copy.deepcopy((data['inputs'], data['data_samples'])))
            model.training = True  # Of the detector alone: it gives no losses in eval mode.
            losses = model.loss(*copy.deepcopy((data['inputs'], data['data_samples'])))
        model.train(training)
        pred = InstanceData.cat([sample.pred_instances for sample in found])
        return [pred.bboxes, pred.scores, pred.labels, *losses.values()]

    hook = Injection(probe)
    make_runner(
        tmp_path,
        hook,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        **{'train_cfg.max_steps': 1},
    ).train()
    for path, (adapters, got) in zip((tiny_base, tmp_path / 'task_1.pth'), hook.seen, strict=True):
        assert adapters == 8
        plain = build_tiny(seed=1)
        plain.load_state_dict(weights(path))
        # Torch picks the kernel of a linear layer by its weight's requires_grad, also in no_grad.
        plain.requires_grad_(False)
        want = probe(plain)
        assert len(want[0]) == 40
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


STOCK = """
import sys
import numpy as np

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'mmforget':
            raise ImportError('mmforget is not installed here')

sys.meta_path.insert(0, Blocker())
from mmdet.apis import inference_detector, init_detector

config, checkpoint, image, out = sys.argv[1:]
model = init_detector(config, checkpoint, device='cpu')
found = inference_detector(model, image).pred_instances.numpy()
np.savez(out, boxes=found.bboxes, scores=found.scores, labels=found.labels,
         classes=np.array(model.dataset_meta['classes']))
assert not [name for name in sys.modules if name.startswith('mmforget')]
"""


@pytest.mark.slow
def test_checkpoint_loads_where_mmforget_is_not_installed(
    reference_run, tiny_data, tiny_batch, tmp_path
):
    """Stock mmdet in a process of its own finds the same objects as the run's own model."""
    import numpy as np
    from mmdet.apis import inference_detector
    from mmengine.config import Config

    from mmforget.testing import tiny_config

    config = tiny_config(tiny_data, tmp_path)
    pipeline = config.val_dataloader.dataset.pipeline
    stock = {
        'default_scope': 'mmdet',
        'model': config.model,
        'test_dataloader': {'dataset': {'type': 'CocoDataset', 'pipeline': pipeline}},
    }
    Config(stock).dump(str(tmp_path / 'stock.py'))
    image = str(tiny_data / 'val' / '000000.png')
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    command = [sys.executable, '-c', STOCK, 'stock.py', str(reference_run.work_dir / 'task_2.pth')]
    subprocess.run(
        [*command, image, 'found.npz'], cwd=tmp_path, env=environment, check=True, timeout=120
    )
    there = np.load(tmp_path / 'found.npz')
    model = reference_run.model
    model.cfg = Config(stock)
    here = inference_detector(model, image).pred_instances.numpy()
    assert len(here.scores) == 20
    np.testing.assert_array_equal(there['labels'], here.labels)
    np.testing.assert_allclose(there['boxes'], here.bboxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(there['scores'], here.scores, rtol=1e-5)
    assert tuple(there['classes']) == tuple(
        torch.load(reference_run.work_dir / 'task_2.pth', weights_only=True)['meta'][
            'dataset_meta'
        ]['classes']
    )
