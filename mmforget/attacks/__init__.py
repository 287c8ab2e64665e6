"""Attacks: how deep forgetting goes."""

from mmforget.attacks.relearn import Relearn, RelearnPoint

__all__ = ['Relearn', 'RelearnPoint']
