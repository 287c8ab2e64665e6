"""Tests a checkpoint with MMDetection's own script: the same options, the same behaviour.

python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--cfg-options KEY=VALUE ...]
"""

import runpy
from pathlib import Path

import mmdet

runpy.run_path(str(Path(mmdet.__file__).parent / '.mim' / 'tools' / 'test.py'), run_name='__main__')
