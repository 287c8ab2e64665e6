"""mmforget makes a trained MMDetection detector forget classes and keep the rest."""

import importlib
from typing import Any

from mmforget.compatibility import check_dependencies
from mmforget.version import __version__

check_dependencies()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

# MMEngine resolves ``mmforget::...`` configs through its own table of packages.
MODULE2PACKAGE.setdefault('mmforget', 'mmforget')

# Importing these registers our scope and the ``mmforget://`` scheme with MMEngine.
from mmforget import registry  # noqa: E402
from mmforget.models import checkpoints  # noqa: E402

__all__ = ['__version__', 'checkpoints', 'evaluate', 'forget', 'plan', 'registry']

# Found in mmforget.apis when first asked for: that room imports all of MMDetection.
_APIS = ('evaluate', 'forget', 'plan')


def __getattr__(name: str) -> Any:
    if name == 'apis' or name in _APIS:
        apis = importlib.import_module('mmforget.apis')
        return apis if name == 'apis' else getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
