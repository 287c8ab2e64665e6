"""Objectives, one a file. Every file of this folder is imported, so a new one needs no list."""

import importlib
import pkgutil

from mmforget.methods.base import (
    FORGET,
    RETAIN,
    TEACHERS,
    ForgettingMethod,
    Measurement,
    TaskContext,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')

__all__ = ['FORGET', 'RETAIN', 'TEACHERS', 'ForgettingMethod', 'Measurement', 'TaskContext']
