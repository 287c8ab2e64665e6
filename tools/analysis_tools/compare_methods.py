"""Runs several forgetting configs on the same tasks, seed by seed; what is finished stays.

    python tools/analysis_tools/compare_methods.py configs/garments/*_80s_garments-continual.py \
        --curves-every 20
    python tools/analysis_tools/compare_methods.py configs/garments/gs-lora*_garments-continual.py \
        --scenario configs/_base_/scenarios/garments_fewshot.py --seeds 42 43 44
    python tools/analysis_tools/results_table.py \
        work_dirs/comparison/deformable-detr_mobilenetv2_garments-fewshot
    python tools/analysis_tools/compare_methods.py configs/ablations/rank.py

Each run has a folder WORK_DIR/DETECTOR_SCENARIO/METHOD/seed_N. A run that was cut is resumed, a
finished one is left alone, one that another process is at work on is passed over: start the command
again, or several times side by side. The loaded detector is measured once.
"""

import argparse
import fcntl
import gc
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmforget.engine.checkpoints import RESUME_FILE
from mmforget.engine.results import FILE_NAME, read_results


def scenario_of(path: Path) -> dict[str, Any]:
    """The key ``scenario`` of a scenario's config.

    Raises:
        ValueError: It has none.
    """
    config = Config.fromfile(path)
    if 'scenario' not in config:
        raise ValueError(
            f'{path} has the keys {sorted(config)}; expected scenario, as the files in '
            'configs/_base_/scenarios have it.'
        )
    return config.scenario


def prepared(config: Config, folder: Path, seed: int, split: str) -> Config:
    """A config for one run.

    Args:
        config: Of the method; changed in place.
        folder: The run's work dir.
        seed: Of everything that is drawn.
        split: ``'val'`` or ``'test'``: where forgetting is measured.
    """
    config.work_dir = str(folder)
    config.randomness = dict(seed=seed)
    config.log_level = 'WARNING'
    config.experiment_name = f'{folder.parent.name}_{seed}_{time.time_ns()}'
    if split == 'test':
        config.val_dataloader = config.test_dataloader
        config.val_evaluator = config.test_evaluator
    if (folder / RESUME_FILE).is_file():
        config.resume, config.load_from = True, None
    return config


def finished(folder: Path) -> bool:
    """Whether all tasks of a run are done."""
    if not (folder / FILE_NAME).is_file():
        return False
    document = read_results(folder / FILE_NAME)
    return len(document['tasks']) == len(document['run'].get('tasks', ()))


def known_base(folder: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The loaded detector's scores, as another run in the folder measured them.

    Args:
        folder: Of all runs.
        run: The tasks and what the base depends on, as the results file has them.
    """
    for path in sorted(folder.glob(f'*/*/{FILE_NAME}')):
        document = read_results(path)
        if document['base'] and all(document['run'].get(k) == v for k, v in run.items()):
            return document['base']
    return None


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process alone works in a folder; a killed one's claim is void."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def runs_of(path: Path, scenario: Any = None) -> dict[str, Config]:
    """Names and configs: one of a method, or all variants of an ablation.

    Args:
        path: The config.
        scenario: In the place of the configs' own; ``None`` keeps them. What an ablation varies is
            changed in it.
    """
    config = Config.fromfile(path)
    if 'variants' not in config:
        return {path.stem.split('_')[0]: _with_scenario(config, scenario)}
    found = {}
    for name, changes in config.variants.items():
        base = Config.fromfile(path.resolve().parents[2] / config.base)
        found[name] = _with_scenario(base, scenario)
        found[name].merge_from_dict(changes.to_dict())
    return found


def _with_scenario(config: Config, scenario: Any) -> Config:
    if scenario is not None:
        config.train_cfg.scenario = deepcopy(scenario)
    return config


def common_name(path: Path, scenario: Path | None = None) -> str:
    """What runs on the same tasks have in common: the detector and the scenario.

    Args:
        path: METHOD_DETECTOR_..._SCHEDULE_SCENARIO.py.
        scenario: DATA_SCENARIO.py, in the place of the config's own.
    """
    parts = path.stem.split('_')
    last = parts[-1] if scenario is None else scenario.stem.replace('_', '-', 1)
    # Without the schedule: the oracle's is another one.
    return '_'.join([*parts[1:-2], last])


def folder_name(args: argparse.Namespace) -> str:
    """The folder of all runs of this call.

    Raises:
        ValueError: The configs are of different detectors or scenarios.
    """
    ablation = args.configs[0].parent.name == 'ablations'
    names = {
        f'ablation_{path.stem}' if ablation else common_name(path, args.scenario)
        for path in args.configs
    }
    if len(names) > 1:
        raise ValueError(
            f'The configs are of {" and ".join(sorted(names))}; expected one detector and one '
            'scenario, METHOD_DETECTOR_..._SCHEDULE_SCENARIO.py. Compare them in two calls.'
        )
    (name,) = names
    return f'{name}_val' if args.split == 'val' else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs', nargs='+', type=Path, help='METHOD_..., one for each method; or one ablation'
    )
    parser.add_argument('--scenario', type=Path, help='tasks and streams for all of them')
    parser.add_argument('--seeds', nargs='+', type=int, default=[42])
    parser.add_argument('--split', choices=('val', 'test'), default='test')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/comparison'))
    parser.add_argument(
        '--curves-every', type=int, metavar='STEPS', help='also measures in the midst of tasks'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings of all configs, KEY=VALUE'
    )
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.INFO)
    for path in [*args.configs, *filter(None, [args.scenario])]:
        if not path.is_file():
            parser.error(f'{path} is no file; expected configs of forgetting runs.')
    scenario = scenario_of(args.scenario) if args.scenario else None
    runs = {}
    for path in args.configs:
        found = runs_of(path, scenario)
        if twice := sorted(found.keys() & runs.keys()):
            parser.error(
                f'{path} is another config of {", ".join(twice)}; their results would lie in one '
                'folder. Compare them in two calls, with a --work-dir each.'
            )
        runs |= found
    if scenario is not None and 'oracle' in runs:
        parser.error(
            'The oracle has a scenario of its own, all requests at once, which --scenario would '
            'replace. Run it in a call without --scenario.'
        )
    name = folder_name(args)
    for seed in args.seeds:
        for method, found in runs.items():
            folder = args.work_dir / name / method / f'seed_{seed}'
            with claimed(folder) as free:
                if not free or finished(folder):
                    print(f'{folder}: {"finished" if free else "another process is at it"}')
                    continue
                start = time.perf_counter()
                config = found.copy()
                config.merge_from_dict(args.cfg_options or {})
                if args.curves_every is not None:
                    hook = dict(type='mmforget.ForgettingCurvesHook', interval=args.curves_every)
                    config.custom_hooks = [*config.custom_hooks, hook]
                runner = Runner.from_cfg(prepared(config, folder, seed, args.split))
                loop = runner.train_loop
                tasks = [list(task.classes) for task in loop.scenario.tasks]
                own = {'tasks': tasks, **loop.reference}
                loop.base = known_base(args.work_dir / name, own)
                runner.train()
                gc.collect()
                print(f'{folder}: {time.perf_counter() - start:.0f} s', flush=True)


if __name__ == '__main__':
    main()
