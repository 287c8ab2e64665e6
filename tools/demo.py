"""Makes the trained Garments detector forget six classes in three tasks, and prints the table.

    python tools/demo.py              # retain stream: 10 % of the training images
    python tools/demo.py --few-shot   # retain stream: 64 images
    python tools/demo.py --work-dir work_dirs/short --cfg-options train_cfg.max_steps=20
    python tools/demo.py --config my_forgetting_config.py --page docs/detectors.md

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

from mmforget.benchmarks.report import write_page
from mmforget.engine.results import read_results
from mmforget.taps import TrunkCache
from mmforget.visualization.tables import demo_table, mask_results

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


def _check_one_set(config: Config, path: Path) -> None:
    """The controls change the groups of the first hook.

    Raises:
        ValueError: It is no set of adapters, or not the only one.
    """
    kinds = [hook.type for hook in config.custom_hooks]
    if kinds[0] != 'mmforget.GroupSparseLoRAHook' or kinds.count(kinds[0]) > 1:
        raise ValueError(
            f'{path} has custom_hooks of {kinds}; the controls are made for one '
            'mmforget.GroupSparseLoRAHook, the first of them. Give another config, or '
            '--no-controls.'
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--few-shot', action='store_true', help='64 retain images, not 10 %%')
    parser.add_argument(
        '--config', type=Path, help='another forgetting config with one adapter set'
    )
    parser.add_argument(
        '--page', type=Path, help="a Markdown page with markers of the config's name for the table"
    )
    parser.add_argument(
        '--work-dir', type=Path, help='default: work_dirs/demo, demo-fewshot or demo-CONFIG'
    )
    parser.add_argument('--seed', type=int, help="default: the config's")
    parser.add_argument('--no-controls', action='store_true', help='the first run alone')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings of the config, KEY=VALUE'
    )
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    start = time.perf_counter()
    path = args.config or ROOT / 'configs' / 'garments' / CONFIGS[args.few_shot]
    config = Config.fromfile(path)
    config.merge_from_dict(args.cfg_options or {})
    # Where the command is given, as mmdet's scripts do: ROOT may lie in an installed package.
    name = 'demo-fewshot' if args.few_shot else 'demo'
    name = f'demo-{args.config.stem}' if args.config else name
    work_dir = args.work_dir or Path('work_dirs') / name
    if not args.no_controls:
        _check_one_set(config, path)
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
    text = demo_table(results)
    masks = {name: mask_results(document) for name, document in results.items()}
    if all(masks.values()):
        text += f'\n\nMasks:\n\n{demo_table(masks)}'
    print(text)
    if args.page is not None:
        write_page(args.page, text, path.stem)
    print(f'{time.perf_counter() - start:.0f} s in all; everything is in {work_dir}.')


if __name__ == '__main__':
    main()
