"""Packaging of mmforget.

``install_requires`` names no distribution of MMDetection's family on purpose: ``mmengine``,
``mmcv`` and ``mmdet`` can come from OpenMMLab's distributions or from the OneDL forks, which carry
the same import names. ``mmforget.compatibility`` checks at import what is there.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
# MMEngine and mim look for these in `<package>/.mim`.
MIM_FOLDERS = ('configs', 'tools')
MIM_INDEX = 'model-index.yml'


def read(name: str) -> str:
    """Returns the text of a file of the repository, '' if it does not exist."""
    path = ROOT / name
    return path.read_text(encoding='utf-8') if path.is_file() else ''


def version() -> str:
    """Returns the version without importing the package."""
    return re.search(r"__version__ = '([^']+)'", read('mmforget/version.py')).group(1)


def requirements(name: str) -> list[str]:
    """Returns the requirements listed in ``requirements/<name>.txt``."""
    lines = (line.split('#')[0].strip() for line in read(f'requirements/{name}.txt').splitlines())
    return [line for line in lines if line]


def unpinned(name: str) -> list[str]:
    """Returns the names listed in ``requirements/<name>.txt`` without versions, for an extra."""
    return list(dict.fromkeys(re.split(r'[=<>;\s]', line)[0] for line in requirements(name)))


class BuildWithConfigs(build_py):
    """Puts configs, tools and model-index.yml into the wheel, as ``mmforget/.mim``."""

    def run(self) -> None:
        """Builds the package, then adds the folders and the index."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmforget' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        for folder in MIM_FOLDERS:
            if (ROOT / folder).is_dir():
                ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(ROOT / folder, target / folder, ignore=ignore)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / MIM_INDEX, target / MIM_INDEX)


class EditableWithConfigs(editable_wheel):
    """Links configs, tools and model-index.yml into the working tree's ``mmforget/.mim``."""

    def run(self) -> None:
        """Makes the links and tells MMEngine where the package is, then installs."""
        target = ROOT / 'mmforget' / '.mim'
        target.mkdir(exist_ok=True)
        for name in (*MIM_FOLDERS, MIM_INDEX):
            link = target / name
            if not link.is_symlink():
                link.unlink(missing_ok=True)
                link.symlink_to(Path('..', '..', name), target_is_directory=name in MIM_FOLDERS)
        # MMEngine takes a package to lie beside its metadata, which is wrong for an editable
        # install, unless the first line of top_level.txt says otherwise.
        if self.dist_info_dir is None:
            self.dist_dir.mkdir(exist_ok=True)
            dist_info = self.reinitialize_command('dist_info')
            dist_info.output_dir = self.dist_dir
            dist_info.ensure_finalized()
            dist_info.run()
            self.dist_info_dir = dist_info.dist_info_dir
        names = Path(self.dist_info_dir) / 'top_level.txt'
        names.write_text(f'{ROOT / "mmforget"}\nmmforget\n')
        super().run()


EXTRAS = {
    'vit': ['timm'],
    # Numbers of pycocotools in a fraction of its time.
    'fast-eval': ['faster-coco-eval'],
    'tune': ['optuna'],
    'tests': unpinned('tests'),
    'lint': unpinned('lint'),
}
EXTRAS['all'] = sorted({name for names in EXTRAS.values() for name in names})

setup(
    name='mmforget',
    version=version(),
    description='Continual forgetting of classes for MMDetection detectors',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmforget', 'mmforget.*']),
    # A data folder belongs to the package around it and is none itself.
    package_data={'mmforget': ['**/data/*', '**/data/**/*']},
    include_package_data=False,
    install_requires=requirements('runtime'),
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithConfigs, 'editable_wheel': EditableWithConfigs},
    zip_safe=False,
    keywords=['machine unlearning', 'continual forgetting', 'object detection', 'LoRA', 'mmdet'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
