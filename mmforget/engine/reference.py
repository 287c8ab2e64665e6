"""On what the loaded detector was measured."""

from collections.abc import Mapping
from typing import Any

# Where the data lie is another matter: the same files may lie elsewhere.
_OF_DATA = ('type', 'ann_file', 'split', 'indices')


def measured_on(dataloader: Any, evaluator: Any) -> dict[str, Any]:
    """What names a measurement, as plain JSON types; empty where there is no config of it.

    Args:
        dataloader: The config of validation's dataloader.
        evaluator: Of its metrics.
    """
    found: dict[str, Any] = {}
    data = dataloader.get('dataset') if isinstance(dataloader, Mapping) else None
    while isinstance(data, Mapping) and isinstance(data.get('dataset'), Mapping):
        data = data['dataset']
    if isinstance(data, Mapping):
        found['data'] = {key: str(data[key]) for key in _OF_DATA if key in data}
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    names = [metric['type'] for metric in metrics if isinstance(metric, Mapping)]
    if names:
        found['metrics'] = [str(name) for name in names]
    return found
