"""How forgetting and retention are measured."""

from mmforget.evaluation.accuracy import ForgettingAccuracy
from mmforget.evaluation.base import ForgettingMetric
from mmforget.evaluation.coco_metric import ForgettingCocoMetric
from mmforget.evaluation.forgetting_scores import ForgettingScores

__all__ = ['ForgettingAccuracy', 'ForgettingCocoMetric', 'ForgettingMetric', 'ForgettingScores']
