"""The wheel as a user has it: built, installed into an empty folder, run without the clone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *('setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml'),
    *('README.md', 'LICENSE', 'NOTICE', 'requirements', 'configs', 'tools', 'mmforget'),
)
pytestmark = pytest.mark.slow


def pip(*arguments):
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def files(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    # A copy, so that the build leaves nothing in the repository.
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns('__pycache__', '.mim')
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    offline = ('--no-deps', '--no-index')
    pip('wheel', *offline, '--no-build-isolation', '--wheel-dir', folder / 'dist', source)
    (wheel,) = (folder / 'dist').glob('mmforget-*.whl')
    shutil.rmtree(source)
    pip('install', *offline, '--target', folder / 'site', wheel)
    return folder / 'site'


@pytest.fixture
def run(installed, tmp_path, quick_start):
    """Runs Python in an empty folder, with the installed package on the path, not the clone."""

    def run(*arguments):
        environment = {key: v for key, v in os.environ.items() if key != 'PYTHONPATH'}
        environment['PYTHONPATH'] = f'{installed}{os.pathsep}{quick_start}'
        environment.setdefault('MMFORGET_DATA', str(ROOT / 'data'))
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return result.stdout

    return run


def test_the_wheel_carries_configs_tools_and_index(installed):
    carried = installed / 'mmforget' / '.mim'
    for folder in ('configs', 'tools'):
        assert files(carried / folder) == files(ROOT / folder)
    index = (ROOT / 'model-index.yml').read_text()
    assert (carried / 'model-index.yml').read_text() == index
    assert os.access(carried / 'tools' / 'dist_train.sh', os.X_OK)


def test_the_wheel_carries_the_data(installed):
    there = files(installed / 'mmforget')
    data = {name for name in files(ROOT / 'mmforget') if 'data/' in name and '.mim' not in name}
    assert data and data <= there


def test_mmengine_finds_config_and_weights(run, installed):
    """By the names that mmengine gives them: ``mmforget::...`` and the index's ``Weights``."""
    found = run(
        '-c',
        'import mmforget, torch\n'
        'from mmdet.registry import MODELS\n'
        'from mmdet.utils import register_all_modules\n'
        'from mmengine.hub import get_config\n'
        'from mmengine.runner import load_checkpoint\n'
        'register_all_modules(init_default_scope=True)\n'
        "name = 'mmforget::garments/deformable-detr_mobilenetv2_3k_garments.py'\n"
        'config = get_config(name, pretrained=True)\n'
        'model = MODELS.build(config.model)\n'
        'load_checkpoint(model, config.model_path, strict=True)\n'
        'print(mmforget.__file__)\n'
        'print(config.filename)\n',
    ).splitlines()
    package, config = (Path(line) for line in found[-2:])
    assert package.parent == installed / 'mmforget'
    assert installed in config.parents


def test_the_docs_name_this_wheel(installed):
    (wheel,) = (installed.parent / 'dist').iterdir()
    page = (ROOT / 'docs' / 'get_started.md').read_text()
    assert f'pip install {wheel.name}' in page


def test_one_further_command_forgets_garments(run, tmp_path):
    """After the installation: the README's line with the names that it gives, and fewer steps."""
    readme = (ROOT / 'README.md').read_text()
    (line,) = re.findall(r'^python -m mmforget (forget .*forgotten\.pth)$', readme, re.MULTILINE)
    for word, prefix in (('CONFIG', 'mmforget::'), ('CHECKPOINT', 'mmforget://')):
        (name,) = set(re.findall(rf'`({prefix}\S+)`', readme))
        line = line.replace(word, name)
    shorter = ('--steps', '4', '--cfg-options', 'val_dataloader.dataset.indices=25')
    printed = run('-m', 'mmforget', *line.split(), *shorter)
    assert '| GS-LoRA | 1          | bag, sneaker |' in printed
    assert (tmp_path / 'forgotten.pth').is_file()
    assert (tmp_path / 'forgotten_work_dir' / 'pictures' / 'task_1_detections.png').is_file()


def test_the_demo_runs_from_the_wheel(run, tmp_path):
    printed = run(
        *('-m', 'mmforget', 'demo', '--no-controls', '--cfg-options'),
        *('train_cfg.max_steps=2', 'train_cfg.scenario.tasks=[[bag],[dress]]'),
        *('custom_hooks.0.sparsity=None', 'val_dataloader.dataset.indices=25'),
    )
    work_dir = tmp_path / 'work_dirs' / 'demo' / 'gs-lora'
    assert (work_dir / 'task_2.pth').is_file()
    document = json.loads((work_dir / 'forgetting.json').read_text())
    assert [row['classes'] for row in document['tasks']] == [['bag'], ['dress']]
    assert [row['steps'] for row in document['tasks']] == [2, 2]
    assert 'AP_r relative' in printed
