"""Checkpoints that are whole or absent, and that hold plain types only."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu

from mmforget.engine.results import atomic_file, write_atomically

RESUME_FILE = 'resume.pth'
_PLAIN = (str, int, float, bool, type(None))


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint whole or not at all."""
    with atomic_file(path) as file:
        torch.save(content, file)


def detector_checkpoint(runner: Runner) -> dict[str, Any]:
    """The plain detector as MMDetection writes it: loads where mmforget is not installed."""
    return {
        'meta': {
            'cfg': runner.train_loop.config_text,
            'seed': runner.seed,
            'experiment_name': runner.experiment_name,
            'epoch': 0,
            'iter': runner.iter,
            'dataset_meta': _plain(getattr(runner.train_dataloader.dataset, 'metainfo', {})),
        },
        'state_dict': weights_to_cpu(runner.model.state_dict()),
        'message_hub': pack_message_hub(runner.message_hub),
    }


def save_resume_checkpoint(runner: Runner, state: dict[str, Any], with_optimizer: bool) -> Path:
    """Writes ``resume.pth`` and points mmdet's ``--resume`` at it.

    Args:
        runner: The runner.
        state: The loop's state, plain types and tensors; lands in ``meta['mmforget']``.
        with_optimizer: A task is under way, whose optimiser and schedulers must survive.
    """
    checkpoint = detector_checkpoint(runner)
    checkpoint['meta']['mmforget'] = {
        key: value if key in ('trainable', 'method', 'teacher') else _plain(value)
        for key, value in state.items()
    }
    if with_optimizer:
        assert isinstance(runner.optim_wrapper, OptimWrapper)
        checkpoint['optimizer'] = runner.optim_wrapper.state_dict()
        checkpoint['param_schedulers'] = [s.state_dict() for s in runner.param_schedulers or []]
    path = Path(runner.work_dir) / RESUME_FILE
    save_atomically(checkpoint, path)
    write_atomically(Path(runner.work_dir) / 'last_checkpoint', str(path))
    return path


def pack_message_hub(hub: MessageHub) -> dict[str, Any]:
    """The message hub's state as plain types."""
    state = hub.state_dict()
    scalars = {}
    for key, buffer in state['log_scalars'].items():
        values, counts = buffer.data
        scalars[key] = {
            'values': values.tolist(),
            'counts': counts.tolist(),
            'max_length': buffer.max_length,
        }
    # numpy's floats are Python floats to isinstance, but not to the unpickler.
    info = {
        key: _plain(value)
        for key, value in state['runtime_info'].items()
        if isinstance(value, (*_PLAIN, np.generic))
    }
    return {
        'log_scalars': scalars,
        'runtime_info': info,
        'resumed_keys': {k: v for k, v in state['resumed_keys'].items()},
    }


def unpack_message_hub(state: dict[str, Any]) -> dict[str, Any]:
    """Rebuilds what ``MessageHub.load_state_dict`` expects."""
    scalars = {
        key: HistoryBuffer(value['values'], value['counts'], value['max_length'])
        if isinstance(value, dict)
        else value
        for key, value in state['log_scalars'].items()
    }
    return {**state, 'log_scalars': scalars}


def _plain(value: Any) -> Any:
    """Tuples, lists and dicts of plain types; anything else becomes text."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return str(value)
