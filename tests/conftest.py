"""Fixtures of all folders: tiny data, a tiny detector's checkpoint, and runners over both."""

import functools
import itertools
import logging
import os
from types import SimpleNamespace

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_collection_modifyitems(items):
    gpu = [item for item in items if 'gpu' in item.keywords]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))


@pytest.fixture(scope='session')
def quick_start(tmp_path_factory):
    """A folder for PYTHONPATH, with which processes of MMDetection start in half the time.

    MMEngine imports ``transformers`` for one optimiser where it is installed, which takes longer
    than torch, and formats a config for seconds whenever it is dumped.
    """
    folder = tmp_path_factory.mktemp('quick_start')
    (folder / 'transformers.py').write_text("raise ImportError('left out')\n")
    (folder / 'yapf' / 'yapflib').mkdir(parents=True)
    (folder / 'yapf' / '__init__.py').write_text("__version__ = '0.43.0'\n")
    (folder / 'yapf' / 'yapflib' / '__init__.py').touch()
    (folder / 'yapf' / 'yapflib' / 'yapf_api.py').write_text(
        'def FormatCode(text, **_):\n    return text, True\n'
    )
    return str(folder)


@pytest.fixture(scope='session')
def plain_dumps():
    """Configs are dumped unformatted: formatting costs each runner seconds and tells nothing."""
    from mmengine.config import config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, 'FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """Folder of a few real Garments scenes."""
    from mmforget.testing import write_tiny_data

    return write_tiny_data(tmp_path_factory.mktemp('tiny_data'), train=24, val=4)


@pytest.fixture(scope='session')
def build_tiny():
    """Builds a tiny detector: ``build_tiny(**changes of the model config)``, seeded, in eval mode.

    Every parameter gets some noise, so that no box, score or bias is alike and no norm trivial.
    """

    def build(config=None, seed=0, **changes):
        import torch
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import ConfigDict

        from mmforget.testing import tiny_detector

        register_all_modules(init_default_scope=True)
        config = ConfigDict(config or tiny_detector())
        config.update(changes)
        torch.manual_seed(seed)
        model = MODELS.build(config)
        logging.disable(logging.INFO)  # A line for every parameter.
        model.init_weights()
        logging.disable(logging.NOTSET)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model.eval()

    return build


@pytest.fixture(scope='session')
def tiny_base(tmp_path_factory, build_tiny):
    """Checkpoint of a tiny detector: random, every parameter different from its neighbours."""
    import torch

    path = tmp_path_factory.mktemp('tiny_base') / 'base.pth'
    torch.save({'state_dict': build_tiny().state_dict(), 'meta': {}}, path)
    return path


@pytest.fixture(scope='session')
def make_runner(tiny_data, tiny_base, plain_dumps):
    """Builds a Runner on the tiny config: ``make_runner(work_dir, hook, ..., **overrides)``.

    By default it loads ``tiny_base``. Resuming is ``resume=True, load_from=None``.
    """
    numbers = itertools.count()

    def make(work_dir, *hooks, **overrides):
        from mmengine.runner import Runner

        from mmforget.testing import tiny_config

        overrides.setdefault('load_from', str(tiny_base))
        config = tiny_config(tiny_data, work_dir, **overrides)
        config.experiment_name = f'tiny_{next(numbers)}'
        runner = Runner.from_cfg(config)
        for hook in hooks:
            runner.register_hook(hook, priority='VERY_LOW')
        return runner

    return make


@pytest.fixture(scope='session')
def reference_run(make_runner, tmp_path_factory):
    """A finished run of two tasks, to be looked at only: ``work_dir`` and the runner's model."""
    work_dir = tmp_path_factory.mktemp('reference_run')
    runner = make_runner(work_dir)
    runner.train()
    return SimpleNamespace(work_dir=work_dir, model=runner.model.eval(), runner=runner)


@pytest.fixture(scope='session')
def tiny_batch(tiny_data):
    """The first images of the training split as a dataloader collates them, with their boxes."""

    @functools.cache
    def dataset():
        from mmdet.registry import DATASETS
        from mmdet.utils import register_all_modules

        from mmforget.testing import tiny_config

        register_all_modules(init_default_scope=True)
        config = tiny_config(tiny_data, '')
        pipeline = [t for t in config.train_dataloader.dataset.pipeline if t.type != 'RandomFlip']
        return DATASETS.build({**config.train_dataloader.dataset, 'pipeline': pipeline})

    def batch(images=4):
        from mmengine.dataset import pseudo_collate

        return pseudo_collate([dataset()[index] for index in range(images)])

    return batch
