"""Checks at import that the packages mmforget stands on are there and fit.

``mmengine``, ``mmcv`` and ``mmdet`` cannot be ordinary requirements: OpenMMLab's distributions and
the OneDL forks (``onedl-mmengine``, ``onedl-mmcv``, ``onedl-mmdetection``) carry the same import
names, and naming one family would install it over the other. So what can be imported is checked,
and never what a distribution is called.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from types import ModuleType

__all__ = ['check_dependencies', 'find_problems', 'version_key']

# Import name -> lowest version that fits, first version that does not (None: open).
SUPPORTED = {
    'torch': ('2.6', None),
    'mmengine': ('0.10', '1'),
    'mmcv': ('2.0.0rc4', '3'),
    'mmdet': ('3.1', '4'),
}
# OpenMMLab's mmdet (up to 3.3) refuses mmcv 2.2; the OneDL fork (from 3.4) works with its 2.3.
MMCV_BELOW_WITH_OPENMMLAB = '2.2.0'
FIRST_ONEDL_MMDET = '3.4'
# OpenMMLab's mmengine (up to 0.10.7) needs pkg_resources, which setuptools 81 dropped.
FIRST_MMENGINE_WITHOUT_PKG_RESOURCES = '0.10.8'

INSTALL_HELP = """\
Install one of the two families, not both:
  OpenMMLab (the tested one)
    pip install torch==2.11.0 torchvision==0.26.0 "setuptools<81" wheel ninja psutil
    pip install mmengine==0.10.7 mmdet==3.3.0
    MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0
  OneDL forks
    pip install onedl-mmengine onedl-mmdetection
    MMCV_WITH_OPS=1 pip install --no-build-isolation onedl-mmcv"""


def version_key(version: str) -> tuple[int, ...]:
    """Turns a version into a tuple that sorts like it: ``2.0.0rc4`` before ``2.0.0``.

    Args:
        version: A version; what follows ``+`` is ignored.

    Returns:
        Three release numbers, then the rank and number of a pre-release.
    """
    match = re.match(r'(\d+(?:\.\d+)*)(?:[._-]?(a|b|rc|dev)[._-]?(\d*))?', version)
    if match is None:
        return (0, 0, 0, 0, 0)
    release = [int(part) for part in match.group(1).split('.')]
    release = (release + [0, 0, 0])[:3]
    ranks = {'dev': 0, 'a': 1, 'b': 2, 'rc': 3, None: 4}
    return (*release, ranks[match.group(2)], int(match.group(3) or 0))


def _needed(name: str) -> str:
    lowest, below = SUPPORTED[name]
    if name == 'mmcv':
        return f'mmcv >={lowest},<{MMCV_BELOW_WITH_OPENMMLAB}, or <{below} of the OneDL fork'
    return f'{name} >={lowest}' + (f',<{below}' if below else '')


def _is_below(version: str, bound: str) -> bool:
    return version_key(version) < version_key(bound)


def _import(name: str, import_module: Callable) -> tuple[ModuleType | None, str]:
    """Returns the module, or None and what is wrong with it."""
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, f'{name} is not installed (needed: {_needed(name)})'
        return None, f'{name} is there but needs {error.name}, which is not installed'
    except (ImportError, OSError, AssertionError) as error:
        # OSError: a shared library that does not load. AssertionError: mmdet on an unfit mmcv.
        return None, f'{name} is there but cannot be imported: {error}'
    version = str(getattr(module, '__version__', '0'))
    lowest, below = SUPPORTED[name]
    if _is_below(version, lowest) or (below and not _is_below(version, below)):
        return None, f'{name} {version} is not supported (needed: {_needed(name)})'
    return module, ''


def _has(name: str, find_spec: Callable) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def find_problems(
    import_module: Callable = importlib.import_module,
    find_spec: Callable = importlib.util.find_spec,
) -> list[str]:
    """Lists what is missing or does not fit.

    Args:
        import_module: Imports a module by its name.
        find_spec: Finds a module without importing it.

    Returns:
        One line per problem; an empty list when everything fits.
    """
    problems, versions = [], {}
    for name in SUPPORTED:
        module, problem = _import(name, import_module)
        if problem:
            problems.append(problem)
        else:
            versions[name] = str(module.__version__)
    if 'mmcv' in versions and not _has('mmcv._ext', find_spec):
        problems.append(
            f'mmcv {versions["mmcv"]} has no compiled operators (mmcv-lite, or built without '
            'MMCV_WITH_OPS=1); detectors of the DETR family need them'
        )
    if (
        'mmcv' in versions
        and _is_below(versions.get('mmdet', '9'), FIRST_ONEDL_MMDET)
        and not _is_below(versions['mmcv'], MMCV_BELOW_WITH_OPENMMLAB)
    ):
        problems.append(
            f'mmcv {versions["mmcv"]} does not fit mmdet {versions["mmdet"]} '
            f'(needed: mmcv >={SUPPORTED["mmcv"][0]},<{MMCV_BELOW_WITH_OPENMMLAB})'
        )
    if _is_below(versions.get('mmengine', '9'), FIRST_MMENGINE_WITHOUT_PKG_RESOURCES) and not _has(
        'pkg_resources', find_spec
    ):
        problems.append(
            f'mmengine {versions["mmengine"]} needs pkg_resources, which setuptools 81 and later '
            'no longer bring (needed: setuptools <81)'
        )
    return problems


def check_dependencies(
    import_module: Callable = importlib.import_module,
    find_spec: Callable = importlib.util.find_spec,
) -> None:
    """Raises one error that names everything that is missing or does not fit.

    Args:
        import_module: Imports a module by its name.
        find_spec: Finds a module without importing it.

    Raises:
        ImportError: When mmforget cannot work in this environment.
    """
    problems = find_problems(import_module, find_spec)
    if problems:
        found = '\n'.join(f'  - {problem}' for problem in problems)
        raise ImportError(
            f'mmforget needs MMDetection, and this environment does not fit:\n{found}\n'
            f'{INSTALL_HELP}'
        )
