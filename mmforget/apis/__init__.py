"""The same as the configs, in one Python call."""

from mmforget.apis.evaluation import evaluate
from mmforget.apis.forgetting import (
    ForgettingPlan,
    ForgettingResult,
    PreparedForgetting,
    forget,
    plan,
    prepare,
)
from mmforget.apis.forgetting_config import build_forgetting_config, load_config
from mmforget.apis.request import ForgettingRequest, read_request

__all__ = [
    'ForgettingPlan',
    'ForgettingRequest',
    'ForgettingResult',
    'PreparedForgetting',
    'build_forgetting_config',
    'evaluate',
    'forget',
    'load_config',
    'plan',
    'prepare',
    'read_request',
]
