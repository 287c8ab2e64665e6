"""Makes the trained Garments detector forget six classes in three tasks, and prints the table.

    python tools/demo.py              # retain stream: 10 % of the training images
    python tools/demo.py --few-shot   # retain stream: 64 images
    python tools/demo.py --work-dir work_dirs/short --cfg-options train_cfg.max_steps=20

Three runs, the last two as controls with the same steps: GS-LoRA with groups that must earn their
life; the same groups trained on the retain stream alone (β = 0); as many random groups.
"""

import argparse
import copy
import logging
import time
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmforget.engine.results import read_results
from mmforget.taps import TrunkCache
from mmforget.visualization.tables import demo_table

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {
    False: 'gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py',
    True: 'gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks-fewshot.py',
}


def run(config: Config, name: str, work_dir: Path, cache: TrunkCache) -> dict[str, Any]:
    """Trains one config; returns its results file's content.

    All runs begin with the same detector, so they share what its frozen trunk gives for an image.
    """
    config = copy.deepcopy(config)
    config.work_dir = str(work_dir / name)
    config.experiment_name = f'{name}_{time.time_ns()}'
    config.log_level = 'ERROR'
    print(f'{name} ...', flush=True)
    runner = Runner.from_cfg(config)
    runner.train_loop.trunk_cache = cache
    runner.train()
    return read_results(Path(config.work_dir) / 'forgetting.json')


def living_groups(results: dict[str, Any]) -> list[list[str]]:
    """The groups that live in each task."""
    return [[name for name, norm in row['groups'].items() if norm > 0] for row in results['tasks']]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--few-shot', action='store_true', help='64 retain images, not 10 %%')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/demo or demo-fewshot')
    parser.add_argument('--seed', type=int, help="default: the config's")
    parser.add_argument('--no-controls', action='store_true', help='the first run alone')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings of the config, KEY=VALUE'
    )
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    start = time.perf_counter()
    config = Config.fromfile(ROOT / 'configs' / 'garments' / CONFIGS[args.few_shot])
    config.merge_from_dict(args.cfg_options or {})
    # Where the command is given, as mmdet's scripts do: ROOT may lie in an installed package.
    work_dir = args.work_dir or Path('work_dirs') / ('demo-fewshot' if args.few_shot else 'demo')
    if args.seed is not None:
        config.randomness = dict(seed=args.seed)
    cache = TrunkCache(config.train_cfg.trunk_cache_mb * 2**20)
    results = {'GS-LoRA': run(config, 'gs-lora', work_dir, cache)}
    if not args.no_controls:
        living = living_groups(results['GS-LoRA'])
        config.train_cfg.base = str(work_dir / 'gs-lora' / 'forgetting.json')
        del config.custom_hooks[1:]  # No pictures of controls.
        random_groups = copy.deepcopy(config)
        # First the control that leaves the shared encoder as it is, and with it the cache.
        config.train_cfg.method.forget_weight = 0.0
        config.custom_hooks[0].sparsity = dict(type='ChosenGroups', groups=living)
        results['retain training only (β = 0)'] = run(config, 'retain-only', work_dir, cache)
        random_groups.custom_hooks[0].sparsity = dict(
            type='RandomGroups', number=[len(groups) for groups in living]
        )
        results['random groups, same number'] = run(random_groups, 'random-groups', work_dir, cache)
    print(demo_table(results))
    print(f'{time.perf_counter() - start:.0f} s in all; everything is in {work_dir}.')


if __name__ == '__main__':
    main()
