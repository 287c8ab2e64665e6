"""Registries of mmforget: children of MMEngine's root registries, scope ``mmforget``.

A config names our types ``mmforget.X``; ``default_scope`` stays ``'mmdet'``. MMEngine finds the
child by its scope and imports the ``locations`` when the first name is looked up.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmforget', locations=['mmforget.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmforget', locations=['mmforget.datasets']
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='mmforget', locations=['mmforget.evaluation']
)
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmforget',
    locations=['mmforget.models.backbones', 'mmforget.models.necks', 'mmforget.models.classifiers'],
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmforget', locations=['mmforget.engine'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmforget', locations=['mmforget.engine'])
LOG_PROCESSORS = Registry(
    'log_processor',
    parent=MMENGINE_LOG_PROCESSORS,
    scope='mmforget',
    locations=['mmforget.engine'],
)

# No parent in MMEngine: built with ``METHODS.get(name)(**cfg)``, so that mmdet's scope stays the
# default one while a method builds losses.
METHODS = Registry('method', scope='mmforget', locations=['mmforget.methods'])
# Keyed by the detector's class name; see ``mmforget.taps.build_tap``.
TAPS = Registry('tap', scope='mmforget', locations=['mmforget.taps'])
ATTACKS = Registry('attack', scope='mmforget', locations=['mmforget.attacks'])
