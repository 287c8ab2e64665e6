import os

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_collection_modifyitems(items):
    gpu = [item for item in items if 'gpu' in item.keywords]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
