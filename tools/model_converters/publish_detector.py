"""Makes the shipped weights out of a training's checkpoint: half precision, safetensors.

python tools/model_converters/publish_detector.py CHECKPOINT.pth WEIGHTS.safetensors
"""

import argparse
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmforget.models.checkpoints import load_local_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    state = load_local_checkpoint(args.checkpoint, map_location='cpu')['state_dict']
    halves = {
        key: value.half().contiguous() if value.dtype == torch.float32 else value.contiguous()
        for key, value in state.items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_suffix('.tmp')
    save_file(halves, temporary)
    os.replace(temporary, args.out)
    print(f'{args.out}: {len(halves)} tensors, {args.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
