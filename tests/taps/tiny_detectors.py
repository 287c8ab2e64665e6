"""Model configs of detectors that are no DETR, each from the repository's own bases."""

from pathlib import Path

from mmengine.config import Config

BASES = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'models'
PLAIN = ['faster-rcnn_mobilenetv2', 'fcos_mobilenetv2', 'mask-rcnn_swin']


SWIN = {
    'type': 'SwinTransformer',
    'embed_dims': 48,
    'depths': (2, 2, 4, 2),
    'num_heads': (2, 4, 8, 16),
    'window_size': 5,
    'drop_path_rate': 0.1,
}


def base_model(name):
    """The model of ``configs/_base_/models/<name>.py``, starting from noise.

    With ``_swin`` for ``_mobilenetv2`` the same detector on a small Swin.
    """
    model = Config.fromfile(BASES / f'{name.replace("_swin", "_mobilenetv2")}.py').model
    if name.endswith('_swin'):
        model.backbone = SWIN
        model.neck.in_channels = [48, 96, 192, 384]
    _forget_pretrained(model)
    return model


def _forget_pretrained(config):
    if isinstance(config, dict):
        config.pop('init_cfg', None)
        for value in config.values():
            _forget_pretrained(value)
