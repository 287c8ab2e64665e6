"""Trains or forgets with MMDetection's own script: the same options, the same behaviour.

python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...]
"""

import argparse
import os
import runpy
import sys
from pathlib import Path

import mmdet
from mmengine.config import Config
from mmengine.device import get_device

from mmforget.engine.work_dir import check_writable


def check_launcher(launcher: str) -> None:
    """Stops where MMEngine would fail on a device that is not there.

    Raises:
        SystemExit: A launcher started this process on a machine without an accelerator.
    """
    if launcher != 'none' and get_device() == 'cpu':
        sys.exit(
            f'A launcher started {os.environ.get("WORLD_SIZE", "?")} process(es), but there is no '
            'GPU, and MMEngine 0.10 starts its process group on GPUs only. Start without a '
            'launcher: python tools/train.py CONFIG'
        )


def check_work_dir(config: str, work_dir: str | None) -> None:
    """Stops before MMEngine opens its log, whose error does not say how to mend it.

    Raises:
        SystemExit: The work dir cannot be written.
    """
    if work_dir is None:
        work_dir = Config.fromfile(config).get('work_dir')
    try:
        check_writable(work_dir or Path('work_dirs') / Path(config).stem)
    except OSError as error:
        sys.exit(str(error))


def main() -> None:
    """Checks what MMDetection's script would meet later, then hands over to it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('config', nargs='?')
    parser.add_argument('--work-dir')
    parser.add_argument('--launcher', default='none')
    known, _ = parser.parse_known_args()
    check_launcher(known.launcher)
    if known.config and Path(known.config).is_file():
        check_work_dir(known.config, known.work_dir)
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main()
