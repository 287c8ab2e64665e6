"""The Garments demo as the benchmarks use it: config, loaded detector, images and batches."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from mmforget.benchmarks.measurement import Settings
from mmforget.datasets.garments_scenes import prepare_garments
from mmforget.datasets.item_memory import ItemMemory
from mmforget.datasets.stream_loader import StreamBatchSampler, build_stream_loader
from mmforget.datasets.stream_sampling import StreamIndex, class_index, sample_images
from mmforget.datasets.streams import StreamDataset
from mmforget.methods import FORGET, RETAIN
from mmforget.models.checkpoints import load_local_checkpoint, load_mmforget_weights
from mmforget.structures import ForgettingScenario, ForgettingTask, StreamSampling

CONFIG = 'garments/gs-lora_deformable-detr_mobilenetv2_80s_garments-3tasks.py'
DECODER_GROUPS = [f'decoder.layers.{i}' for i in range(3)]
# The group that the demo's trials choose.
CHOSEN_GROUP = 'decoder.layers.2'


def demo_config(settings: Settings) -> Config:
    """The demo's config; without its hook of pictures, which no reference draws."""
    register_all_modules(init_default_scope=True)
    path = Path(settings.configs) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not there; expected the configs that mmforget ships.')
    config = Config.fromfile(path)
    # Whoever looks at the annotation files finds them.
    prepare_garments(config.train_dataloader.dataset.data_root, ('train', 'val'), progress=False)
    del config.custom_hooks[1:]
    config.log_level = 'ERROR'
    return config


def named(config: Config, work_dir: str | Path) -> Config:
    """A copy for one run: a runner wants a name of its own, and so does what it draws with.

    MMEngine keeps both by name in a process: a second run would write into the first one's folder.
    """
    config = copy.deepcopy(config)
    config.work_dir = str(work_dir)
    config.experiment_name = f'benchmark_{time.time_ns()}'
    if config.get('visualizer'):
        config.visualizer.name = config.experiment_name
    return config


def build_detector(config: Config, device: str = 'cpu') -> nn.Module:
    """The detector with the weights of ``load_from``."""
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    detector = MODELS.build(model)
    load = load_local_checkpoint
    if str(config.load_from).startswith('mmforget://'):
        load = load_mmforget_weights
    detector.load_state_dict(load(config.load_from, map_location='cpu')['state_dict'])
    return detector.to(device).eval()


class TrainingImages:
    """The streams of the config's scenario, batch by batch as mmforget's loop draws them.

    Args:
        config: The demo's config.
    """

    def __init__(self, config: Config) -> None:
        self.options = dict(config.train_dataloader)
        self.dataset = DATASETS.build(copy.deepcopy(self.options['dataset']))
        self.index: StreamIndex = class_index(self.dataset)
        scenario = config.train_cfg.scenario
        self.scenario = ForgettingScenario.from_requests(scenario.tasks, self.index.classes)
        self.samplings = {name: StreamSampling(**dict(scenario[name])) for name in (FORGET, RETAIN)}
        self.seed = config.randomness.seed

    def batches(self, task: ForgettingTask, steps: int) -> Iterator[dict[str, dict[str, Any]]]:
        """The batches of a task's first steps."""
        loaders = [
            build_stream_loader(*self.stream(task, name, steps), num_workers=0)
            for name in (FORGET, RETAIN)
        ]
        for forget, retain in zip(*loaders, strict=True):
            yield {FORGET: forget, RETAIN: retain}

    def stream(
        self,
        task: ForgettingTask,
        name: str,
        steps: int,
        memory: ItemMemory | None = None,
        most: int | None = None,
    ) -> tuple[StreamDataset, StreamBatchSampler]:
        """A stream and its batches.

        Args:
            task: The task.
            name: ``'forget'`` or ``'retain'``.
            steps: Number of batches.
            memory: For loaded images.
            most: Images in a batch; by default those of the config.
        """
        classes = task.classes if name == FORGET else task.retained
        sampling = self.samplings[name]
        images = sample_images(self.index, classes, sampling, self.seed, task.index, name)
        dataset = StreamDataset(self.dataset, images, classes, sampling.unlabelled, memory=memory)
        sampler = StreamBatchSampler(
            len(dataset),
            most or sampling.batch_size or self.options['batch_size'],
            self.seed,
            task.index,
            name,
            num_steps=steps,
            augmentations=sampling.augmentations,
            images=dataset.image_indices,
        )
        return dataset, sampler


class LoadedBatches:
    """A task's first two batches in turn, read from their files whenever one is asked for.

    Args:
        config: The demo's config.
        memory: For loaded images.
        most: Images of each stream in a batch; by default those of the config.
    """

    def __init__(
        self, config: Config, memory: ItemMemory | None = None, most: int | None = None
    ) -> None:
        images = TrainingImages(config)
        task = images.scenario.tasks[0]
        self.streams = {
            name: images.stream(task, name, len(self), memory, most) for name in (FORGET, RETAIN)
        }

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return {
            name: pseudo_collate([dataset[item] for item in sampler.batch(index)])
            for name, (dataset, sampler) in self.streams.items()
        }
