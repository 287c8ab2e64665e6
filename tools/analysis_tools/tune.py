"""Searches a method's hyper-parameters on the validation split, the same number of trials for each.

    pip install "mmforget[tune]"
    python tools/analysis_tools/tune.py configs/garments/*_80s_garments-continual.py --trials 8

The first trial is what the config says; the others lie evenly (Optuna's QMC sampler) in the ranges
of mmforget/apis/search_spaces.py, widened to what the config says. A trial is the whole scenario,
or its first ``--tasks``. Its value is the mean over tasks of the harmonic mean of two shares: of
the retained classes' AP that is kept, and of the AP of all classes forgotten so far, old ones
included, that is gone.
WORK_DIR/CONFIG.log holds the trials: the same command goes on where it was cut, and two on
different configs may run side by side. The best values are printed as they go into the config.
"""

import argparse
import gc
import json
import logging
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mmforget.apis.search_spaces import Range, search_space
from mmforget.engine.loops import build_method
from mmforget.engine.results import FILE_NAME, read_results, write_atomically
from mmforget.evaluation.forgetting_scores import harmonic_mean
from mmforget.visualization.method_table import REFERENCES


def present_values(config: Config, space: dict[str, Range]) -> dict[str, float]:
    """What the config says, or the method where the config leaves it out: the first trial."""
    method = build_method(config.train_cfg.method)
    values = {}
    for key in space:
        found = config
        for part in key.split('.'):
            found = found.get(part) if hasattr(found, 'get') else None
        if found is None:
            found = getattr(method, key.rpartition('.')[2], None)
        if isinstance(found, (int, float)):  # Of a list, one for each task, one is searched.
            values[key] = float(found)
    return values


def widened(space: dict[str, Range], values: Mapping[str, float]) -> dict[str, Range]:
    """The ranges, and what the config says where that lies outside."""
    wide = dict(space)
    for key, value in values.items():
        place = space[key]
        if value > 0 or not place.log:
            wide[key] = replace(place, low=min(place.low, value), high=max(place.high, value))
    return wide


def run_trial(config: Config, folder: Path, tasks: int | None) -> float:
    """Runs the tasks, or the first few; 0 where the loss was not finite."""
    shutil.rmtree(folder, ignore_errors=True)
    config.work_dir = str(folder)
    config.log_level = 'ERROR'
    config.experiment_name = f'{folder.parent.name}_{folder.name}_{time.time_ns()}'
    runner = Runner.from_cfg(config)
    if tasks is not None:
        runner.train_loop.only_first(tasks)
    try:
        runner.train()
    except FloatingPointError as error:
        print(f'    {error}')
        return 0.0
    return trial_value(read_results(folder / FILE_NAME))


def trial_value(document: Mapping[str, Any]) -> float:
    """How well all tasks went, in 0..1: forgotten classes are to stay forgotten."""
    gone: list[str] = []
    values = []
    for row in document['tasks']:
        gone += row['classes']
        kept = [name for name in row['per_class'] if name not in gone]
        lost = 1 - _share(row['per_class'], gone)
        values.append(harmonic_mean(min(_share(row['per_class'], kept), 1.0), lost) or 0.0)
    return sum(values) / len(values)


def _share(per_class: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> float:
    """What is left of the AP of some classes."""
    pairs = [per_class[name] for name in names if per_class[name][0] is not None]
    before = sum(pair[0] for pair in pairs)
    return sum(pair[1] for pair in pairs) / before if before else 0.0


def tune(path: Path, args: argparse.Namespace) -> optuna.Study:
    """All trials of one config."""
    config = Config.fromfile(path)
    config.merge_from_dict(args.cfg_options or {})
    space = search_space(config)
    first = present_values(config, space)
    space = widened(space, first)
    method = path.stem.split('_')[0]
    base = args.work_dir / f'base_{path.stem.partition("_")[2]}.json'
    args.work_dir.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=path.stem,
        storage=JournalStorage(JournalFileBackend(str(args.work_dir / f'{path.stem}.log'))),
        direction='maximize',
        load_if_exists=True,
    )
    # Few trials: they lie evenly in the ranges, and go on so after a cut.
    study.sampler = optuna.samplers.QMCSampler(
        scramble=True, seed=args.seed, warn_independent_sampling=False
    )
    done = study.get_trials(states=[TrialState.COMPLETE])
    first = {key: value for key, value in first.items() if value >= space[key].low}
    if not any(trial.params == first for trial in done):
        study.enqueue_trial(first)

    def objective(trial: optuna.Trial) -> float:
        changed = config.copy()
        for key, place in space.items():
            value = trial.suggest_float(key, place.low, place.high, log=place.log)
            changed.merge_from_dict({key: float(f'{value:.2g}')})
        if base.is_file():
            changed.train_cfg.base = str(base)
        folder = args.work_dir / path.stem / f'trial_{trial.number}'
        value = run_trial(changed, folder, args.tasks)
        if not base.is_file():
            write_atomically(base, (folder / FILE_NAME).read_text())
        for file in folder.glob('*.pth'):
            file.unlink()
        gc.collect()
        print(f'{method} {trial.number}: {value:.4f} {_said(trial.params)}', flush=True)
        return value

    study.optimize(objective, n_trials=max(0, args.trials - len(done)))
    return study


def _said(parameters: dict[str, Any]) -> str:
    return ', '.join(f'{key.rpartition(".")[2]}={value:.2g}' for key, value in parameters.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', type=Path)
    parser.add_argument('--trials', type=int, default=8)
    parser.add_argument('--tasks', type=int, help='of the scenario, from the first; default: all')
    parser.add_argument('--seed', type=int, default=0, help='of the sampler')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/tune'))
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings of all configs, KEY=VALUE'
    )
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best = {}
    for path in args.configs:
        if not path.is_file():
            parser.error(f'{path} is no file; expected configs of forgetting runs.')
        if path.stem.split('_')[0] in REFERENCES:
            print(f'{path.stem}: a reference, not searched')
            continue
        study = tune(path, args)
        trials = study.get_trials(states=[TrialState.COMPLETE])
        best[path.stem] = {'value': study.best_value, 'trials': len(trials), **study.best_params}
        print(f'{path.stem}: {study.best_value:.4f} of {len(trials)} trials', flush=True)
        for key, value in study.best_params.items():
            print(f'    {key} = {value:.2g}')
        text = json.dumps(best[path.stem], indent=2) + '\n'
        write_atomically(args.work_dir / f'{path.stem}.json', text)


if __name__ == '__main__':
    main()
