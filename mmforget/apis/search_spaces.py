"""What is searched for each method: its weights, and the learning rate of its trainable part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Where a number is looked for.

    Attributes:
        low: The least value.
        high: The largest.
        log: On a logarithmic scale.
    """

    low: float
    high: float
    log: bool = True


_FORGET = Range(0.1, 3.0)
#: By method. What the authors take in detection (spec B.7, C) lies inside.
METHOD_SPACES: dict[str, dict[str, Range]] = {
    'GSLoRA': {'forget_weight': Range(0.03, 1.0), 'bound': Range(1.0, 15.0)},
    'GSLoRAPlusPlus': {
        'forget_weight': Range(0.03, 1.0),
        'bound': Range(1.0, 15.0),
        'push': Range(0.001, 0.1),
        'pull': Range(0.0001, 0.1),
    },
    'GSLoRADistilled': {
        'forget_weight': Range(0.03, 1.0),
        'bound': Range(1.0, 15.0),
        'strength': Range(0.03, 1.0),
    },
    'FineTuning': {},
    'GradientAscent': {
        'forget_weight': Range(0.01, 1.0),
        'retain_weight': Range(0.0, 1.0, log=False),
    },
    'RandomLabels': {'forget_weight': _FORGET},
    'BackgroundLabels': {'forget_weight': _FORGET},
    'L2': {'strength': Range(0.001, 1.0), 'forget_weight': _FORGET},
    'EWC': {'strength': Range(0.1, 1000.0), 'forget_weight': _FORGET},
    'MAS': {'strength': Range(0.001, 10.0), 'forget_weight': _FORGET},
    'LwF': {'strength': Range(0.05, 5.0), 'retain_weight': Range(0.5, 10.0)},
    'LIRF': {'attention_weight': Range(10.0, 1000.0), 'retain_weight': Range(0.5, 10.0)},
    'DER': {'strength': Range(0.0001, 0.1), 'forget_weight': _FORGET},
    'DERPlusPlus': {'strength': Range(0.0001, 0.1), 'retain_weight': Range(0.05, 2.0)},
    'FDR': {'strength': Range(0.5, 50.0), 'forget_weight': _FORGET},
    'SCRUB': {
        'retain_weight': Range(0.3, 3.0),
        'distillation_weight': Range(0.0001, 0.1),
    },
    'SCRUBS': {'retain_weight': Range(0.3, 3.0), 'smoothing': Range(0.005, 0.5)},
}
#: By trainable part, for short tasks: lower rates forget too little in 80 steps.
LEARNING_RATES = {
    'GroupSparseLoRAHook': Range(0.003, 0.02),
    'FullFineTuningHook': Range(0.0005, 0.003),
    'ReinitialisedHook': Range(0.0001, 0.003),
}


def search_space(config: Mapping[str, Any]) -> dict[str, Range]:
    """Config keys and where their values are looked for.

    Args:
        config: Of a forgetting run.

    Raises:
        ValueError: The method or the trainable part has no space here.
    """
    name = config['train_cfg']['method']['type'].removeprefix('mmforget.')
    if name not in METHOD_SPACES:
        raise ValueError(
            f'The method {name} has no search space; known are {", ".join(METHOD_SPACES)}. Add one '
            'to METHOD_SPACES in mmforget/apis/search_spaces.py.'
        )
    hooks = [hook['type'].removeprefix('mmforget.') for hook in config['custom_hooks']]
    rates = [LEARNING_RATES[hook] for hook in hooks if hook in LEARNING_RATES]
    if not rates:
        raise ValueError(
            f'custom_hooks holds {", ".join(hooks) or "nothing"}; expected one of '
            f'{", ".join(LEARNING_RATES)}, whose learning rate is searched.'
        )
    space = {f'train_cfg.method.{key}': value for key, value in METHOD_SPACES[name].items()}
    return {'optim_wrapper.optimizer.lr': rates[0], **space}
