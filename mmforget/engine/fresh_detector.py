"""The run's detector once more, as its config builds it."""

import copy

from mmengine.runner import Runner
from torch import nn


def fresh_detector(runner: Runner) -> nn.Module:
    """Builds the detector anew; its weights are not initialised.

    Raises:
        RuntimeError: The run has no config of its model.
    """
    model = runner.cfg.get('model')
    if model is None:
        raise RuntimeError(
            'The detector is to be built anew, but the run has no config of it. Start the run '
            'from a config with a model.'
        )
    return runner.build_model(copy.deepcopy(model))
