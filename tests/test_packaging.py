import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import Distribution

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def arguments():
    """Returns the arguments that setup.py passes to setup()."""
    import setuptools

    taken = {}
    original, setuptools.setup = setuptools.setup, lambda **kwargs: taken.update(kwargs)
    folder = os.getcwd()
    try:
        os.chdir(ROOT)
        source = (ROOT / 'setup.py').read_text()
        exec(compile(source, 'setup.py', 'exec'), {'__file__': str(ROOT / 'setup.py')})
    finally:
        setuptools.setup = original
        os.chdir(folder)
    return taken


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    lines = [line.split('#')[0].strip() for line in lines]
    return [Requirement(line) for line in lines if line]


def data_files():
    files = (ROOT / 'mmforget').glob('**/data/**/*')
    return sorted(
        path for path in files if path.is_file() and not {'__pycache__', '.mim'} & set(path.parts)
    )


def test_version_is_the_package_version(arguments):
    assert f"__version__ = '{arguments['version']}'" in (ROOT / 'mmforget/version.py').read_text()


def test_no_distribution_of_either_family_is_required(arguments):
    named = list(arguments['install_requires'])
    for extra in arguments['extras_require'].values():
        named += extra
    names = [Requirement(line).name.lower() for line in named]
    assert 'torch' in names
    assert not [name for name in names if re.match(r'(onedl[-_])?(mm|openmim)', name)]


def test_extra_all_is_the_sum(arguments):
    extras = dict(arguments['extras_require'])
    everything = set(extras.pop('all'))
    assert everything == {name for names in extras.values() for name in names}
    assert set(extras) == {'vit', 'fast-eval', 'tune', 'tests', 'lint'}


def test_reference_pins_everything_once_per_python():
    for python in ('3.10', '3.11', '3.12'):
        names = []
        for requirement in requirements('reference'):
            marker = requirement.marker
            if marker is None or marker.evaluate({'python_version': python}):
                assert re.fullmatch(r'==[\w.]+', str(requirement.specifier)), requirement
                names.append(requirement.name.lower())
        assert len(names) == len(set(names))
        for name in ('runtime', 'tests', 'lint'):
            assert {r.name.lower() for r in requirements(name)} <= set(names)


def test_pins_of_tests_and_lint_agree_with_the_reference():
    pins = {str(requirement) for requirement in requirements('reference')}
    for name in ('tests', 'lint'):
        assert {str(requirement) for requirement in requirements(name)} <= pins


def in_reference_environment():
    return (Path(sys.prefix) / '.mmforget-setup').is_file()


@pytest.mark.skipif(not in_reference_environment(), reason='not made by make setup')
def test_installed_is_what_is_pinned():
    wrong = []
    for requirement in requirements('reference'):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            # Only some systems need these.
            if not re.match('opencv-python-headless|triton|cuda-', requirement.name):
                wrong.append(f'{requirement} is not installed')
            continue
        if not requirement.specifier.contains(installed.split('+')[0]):
            wrong.append(f'{requirement} is installed as {installed}')
    assert not wrong


def test_package_data_covers_every_data_file(arguments):
    packages = arguments['packages']
    distribution = Distribution(
        {'packages': packages, 'package_data': arguments['package_data'], 'src_root': str(ROOT)}
    )
    folder = os.getcwd()
    try:
        os.chdir(ROOT)
        build = distribution.get_command_obj('build_py')
        build.ensure_finalized()
        found = {
            (ROOT / source / name).resolve()
            for _, source, _, names in build.data_files
            for name in names
        }
    finally:
        os.chdir(folder)
    assert data_files()
    assert {path.resolve() for path in data_files()} <= found


def test_every_folder_with_code_is_a_package(arguments):
    folders = {
        '.'.join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / 'mmforget').glob('**/*.py')
        if '.mim' not in path.parts
    }
    assert folders <= set(arguments['packages'])


def test_notice_names_every_binary_data_file():
    notice = (ROOT / 'NOTICE').read_text()
    # Text files are our own notes on the data beside them.
    binary = [path for path in data_files() if path.suffix not in ('.json', '.txt')]
    assert not [path for path in binary if str(path.relative_to(ROOT)) not in notice]


def test_notice_names_every_photograph():
    np = pytest.importorskip('numpy')
    notice = (ROOT / 'NOTICE').read_text()
    with np.load(ROOT / 'mmforget/datasets/data/garments_backgrounds.npz') as photographs:
        for key in photographs.files:
            assert re.search(rf'^    {key.split("/")[-1]} ', notice, re.MULTILINE), key


def test_makefile_has_the_targets():
    text = (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'^([\w-]+):', text, re.MULTILINE))
    assert {'setup', 'demo', 'demo-fewshot', 'test', 'test-slow', 'lint', 'help'} <= targets


@pytest.mark.parametrize('path', ['tools/setup_environment.sh', '.ci/run'])
def test_scripts_are_executable_and_parse(path):
    assert os.access(ROOT / path, os.X_OK)
    subprocess.run(['bash', '-n', str(ROOT / path)], check=True)


@pytest.mark.skipif(not in_reference_environment(), reason='not made by make setup')
def test_configs_are_found_by_mmengine():
    # In a process of its own and elsewhere, so that nothing is found by the current folder.
    code = (
        'import os; from mmengine.utils import get_installed_path as find;'
        'print(os.path.realpath(os.path.join(find("mmforget"), ".mim", "configs")))'
    )
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        check=True,
        capture_output=True,
        text=True,
        cwd='/',
    )
    assert Path(result.stdout.strip().splitlines()[-1]) == (ROOT / 'configs').resolve()
