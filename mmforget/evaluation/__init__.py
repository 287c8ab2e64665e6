"""How forgetting and retention are measured."""

from mmforget.evaluation.coco_metric import ForgettingCocoMetric
from mmforget.evaluation.forgetting_scores import ForgettingScores

__all__ = ['ForgettingCocoMetric', 'ForgettingScores']
