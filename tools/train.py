"""Trains or forgets with MMDetection's own script: the same options, the same behaviour.

python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...]
"""

import runpy
from pathlib import Path

import mmdet

runpy.run_path(
    str(Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'), run_name='__main__'
)
