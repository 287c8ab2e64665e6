"""Model configs of detectors that are no DETR, each from the repository's own bases."""

from pathlib import Path

from mmengine.config import Config

BASES = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'models'
PLAIN = ['faster-rcnn_mobilenetv2', 'fcos_mobilenetv2', 'mask-rcnn_swin']


def base_model(name):
    """The model of ``configs/_base_/models/<name>.py``, starting from noise."""
    model = Config.fromfile(BASES / f'{name}.py').model
    _forget_pretrained(model)
    return model


def _forget_pretrained(config):
    if isinstance(config, dict):
        config.pop('init_cfg', None)
        for value in config.values():
            _forget_pretrained(value)
