"""Trains or forgets with MMDetection's own script: the same options, the same behaviour.

python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...]
"""

import os
import runpy
import sys
from pathlib import Path

import mmdet
from mmengine.device import get_device


def check_launcher() -> None:
    """Stops where MMEngine would fail on a device that is not there.

    Raises:
        SystemExit: A launcher started this process on a machine without an accelerator.
    """
    if 'RANK' in os.environ and get_device() == 'cpu':
        sys.exit(
            f'A launcher started {os.environ.get("WORLD_SIZE", "?")} process(es), but there is no '
            'GPU, and MMEngine 0.10 starts its process group on GPUs only. Start without a '
            'launcher: python tools/train.py CONFIG'
        )


if __name__ == '__main__':
    check_launcher()
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    runpy.run_path(str(script), run_name='__main__')
