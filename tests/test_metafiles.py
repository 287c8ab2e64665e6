"""model-index.yml and the metafiles that it imports: OpenMMLab's model index."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from mmforget.models.checkpoints import SCHEME, find_weights

ROOT = Path(__file__).resolve().parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
METAFILES = {path: yaml.safe_load((ROOT / path).read_text()) for path in INDEX['Import']}
MODELS = {model['Name']: model for file in METAFILES.values() for model in file['Models']}
FOLDERS = sorted(
    path
    for path in (ROOT / 'configs').iterdir()
    # Variants of a config are no models of their own.
    if path.is_dir() and path.name not in ('_base_', 'ablations')
)


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_every_config_folder_has_readme_and_metafile(folder):
    assert (folder / 'README.md').is_file()
    assert str((folder / 'metafile.yml').relative_to(ROOT)) in METAFILES


def test_every_config_is_a_model_and_every_model_a_config():
    configs = {str(p.relative_to(ROOT)) for folder in FOLDERS for p in folder.rglob('*.py')}
    assert configs == {model['Config'] for model in MODELS.values()}
    assert all(Path(model['Config']).stem == name for name, model in MODELS.items())


@pytest.mark.parametrize('path', METAFILES)
def test_collections(path):
    collections = {collection['Name']: collection for collection in METAFILES[path]['Collections']}
    for collection in collections.values():
        assert (ROOT / collection['README']).is_file()
        assert set(collection['Paper']) == {'URL', 'Title'}
        if 'Code' in collection:
            assert (ROOT / collection['Code']['URL']).is_file()
    for model in METAFILES[path]['Models']:
        assert model['In Collection'] in collections


@pytest.mark.parametrize('name', MODELS)
def test_metadata_is_what_the_config_says(name):
    model = MODELS[name]
    config = Config.fromfile(ROOT / model['Config'])
    said = model['Metadata']
    if 'scenario' in config.train_cfg:
        assert said['Tasks'] == len(config.train_cfg.scenario.tasks)
        assert said.get('Steps per Task') == config.train_cfg.get('max_steps')
        assert said.get('Epochs per Task') == config.train_cfg.get('retain_epochs')
        assert said.get('Retain Images') == config.train_cfg.scenario.retain.get('images')
    else:
        assert said['Iterations'] == config.train_cfg.max_iters
        assert said['Batch Size'] == config.train_dataloader.batch_size


@pytest.mark.parametrize('name', MODELS)
def test_results_stand_in_the_readme(name):
    """In percent, as OpenMMLab's indices have it; the READMEs give AP in 0..1."""
    model = MODELS[name]
    readme = (ROOT / model['Config']).with_name('README.md').read_text()
    for result in model.get('Results', []):
        for value in result['Metrics'].values():
            assert f'{value / 100:.4f}' in readme or f'{value / 100:.3f}' in readme


@pytest.mark.parametrize('name', [name for name in MODELS if 'Weights' in MODELS[name]])
def test_weights_are_in_the_package(name):
    weights = MODELS[name]['Weights']
    assert weights.startswith(SCHEME)
    assert (ROOT / 'mmforget') in find_weights(weights.removeprefix(SCHEME)).resolve().parents
