from types import SimpleNamespace

import pytest

from mmforget.compatibility import check_dependencies, find_problems, version_key

OPENMMLAB = {'torch': '2.11.0+cpu', 'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0'}
ONEDL = {'torch': '2.11.0', 'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmdet': '3.5.1'}
FINDABLE = ('mmcv._ext', 'pkg_resources')


def environment(versions, findable=FINDABLE, errors=None):
    """Returns import_module and find_spec of an environment that holds these versions."""

    def import_module(name):
        if errors and name in errors:
            raise errors[name]
        if name not in versions:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
        return SimpleNamespace(__version__=versions[name])

    def find_spec(name):
        return object() if name in findable else None

    return import_module, find_spec


def only_problem(*args, **kwargs):
    problems = find_problems(*environment(*args, **kwargs))
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize('versions', [OPENMMLAB, ONEDL])
def test_both_families_fit(versions):
    check_dependencies(*environment(versions))


def test_this_environment_fits():
    check_dependencies()


def test_onedl_needs_no_pkg_resources():
    check_dependencies(*environment(ONEDL, findable=('mmcv._ext',)))


@pytest.mark.parametrize('name', OPENMMLAB)
def test_missing(name):
    versions = {key: value for key, value in OPENMMLAB.items() if key != name}
    assert f'{name} is not installed' in only_problem(versions)


@pytest.mark.parametrize(
    'name, version',
    [
        ('torch', '2.5.1'),
        ('mmengine', '0.9.1'),
        ('mmengine', '1.0.0'),
        ('mmcv', '1.7.2'),
        ('mmcv', '2.0.0rc3'),
        ('mmcv', '2.2.0'),
        ('mmdet', '2.28.2'),
        ('mmdet', '4.0.0'),
    ],
)
def test_unfit_version_is_named(name, version):
    problem = only_problem({**OPENMMLAB, name: version})
    assert f'{name} {version}' in problem and f'needed: {name} >=' in problem


@pytest.mark.parametrize('name, version', [('mmcv', '2.0.0rc4'), ('mmdet', '3.1.0')])
def test_lowest_versions_fit(name, version):
    check_dependencies(*environment({**OPENMMLAB, name: version}))


def test_mmcv_without_operators():
    assert 'no compiled operators' in only_problem(OPENMMLAB, findable=('pkg_resources',))


def test_setuptools_without_pkg_resources():
    assert 'setuptools <81' in only_problem(OPENMMLAB, findable=('mmcv._ext',))


def test_refusal_of_mmdet_is_passed_on():
    errors = {'mmdet': AssertionError('MMCV==2.2.0 is used but incompatible.')}
    assert 'MMCV==2.2.0 is used but incompatible' in only_problem(OPENMMLAB, errors=errors)


def test_dependency_of_a_dependency():
    errors = {'mmcv': ModuleNotFoundError("No module named 'cv2'", name='cv2')}
    assert 'mmcv is there but needs cv2' in only_problem(OPENMMLAB, errors=errors)


def test_library_that_does_not_load():
    errors = {'torch': OSError('libcudart.so: cannot open shared object file')}
    assert 'torch is there but cannot be imported' in only_problem(OPENMMLAB, errors=errors)


def test_one_error_names_everything():
    with pytest.raises(ImportError) as info:
        check_dependencies(*environment({'torch': '2.5.0', 'mmengine': '0.10.7'}))
    message = str(info.value)
    for part in ('torch 2.5.0', 'mmcv is not', 'mmdet is not', 'mmcv==2.1.0', 'onedl-mmcv'):
        assert part in message


def test_parent_that_is_missing_is_no_crash():
    import_module, _ = environment(OPENMMLAB)

    def find_spec(name):
        raise ModuleNotFoundError(name)

    assert len(find_problems(import_module, find_spec)) == 2


def test_no_version_attribute():
    import_module, find_spec = environment(OPENMMLAB)
    bare = SimpleNamespace()
    problems = find_problems(lambda n: bare if n == 'mmdet' else import_module(n), find_spec)
    assert problems and 'mmdet 0' in problems[0]


def test_versions_sort():
    ordered = ['2.0.0.dev1', '2.0.0rc3', '2.0.0rc4', '2', '2.0.1', '2.1.0', '2.10', '10.0']
    assert sorted(reversed(ordered), key=version_key) == ordered
    assert version_key('2.6.0+cu124') == version_key('2.6')
    assert version_key('2.3.2.post2') == version_key('2.3.2')
