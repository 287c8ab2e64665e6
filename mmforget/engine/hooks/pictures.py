"""Pictures of every task: what was found before and after, AP, the groups' norms."""

from pathlib import Path
from typing import Any

import mmcv
from matplotlib.figure import Figure
from mmengine.dist import master_only
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmforget.engine.detections import detect, ground_truth, load_detections, save_detections
from mmforget.engine.results import atomic_file
from mmforget.registry import HOOKS
from mmforget.structures import ForgettingTask, ResultsRow
from mmforget.visualization.detection_panel import Boxes, PanelImage, detection_panel
from mmforget.visualization.figures import encode_png, figure_pixels
from mmforget.visualization.picture_images import choose_images
from mmforget.visualization.result_pictures import result_pictures

FOLDER = 'pictures'
_LOADED = 'loaded_detector.json'


@HOOKS.register_module()
class ForgettingPicturesHook(Hook):
    """Draws pictures after each task, into ``work_dir/pictures`` and through the Visualizer.

    - ``task_<n>_detections.png``: validation images with their ground truth, what the loaded
      detector finds, and what the detector finds after the task;
    - ``task_<n>_class_ap.png``: AP of each class before and after;
    - ``ap_curves.png`` and ``group_norms.png``: all tasks so far.

    The images are always the same ones: those that hold a class of the task come first. What was
    not measured is not drawn. The run goes on to the bit as it would without the pictures, also
    where one cannot be drawn: that is logged.

    Args:
        images: Validation images in a panel, 1 to 12.
        score_threshold: Detections below are not drawn.

    Raises:
        ValueError: An argument is out of range.
        RuntimeError: The training loop has no forgetting tasks.
    """

    priority = 'VERY_LOW'

    def __init__(self, images: int = 4, score_threshold: float = 0.3) -> None:
        if not isinstance(images, int) or not 1 <= images <= 12:
            raise ValueError(
                f'ForgettingPicturesHook got images={images!r}; expected a number from 1 to 12.'
            )
        if not 0 <= score_threshold <= 1:
            raise ValueError(
                f'ForgettingPicturesHook got score_threshold={score_threshold!r}; expected a '
                'score in 0..1.'
            )
        self.images = images
        self.score_threshold = score_threshold
        self._chosen: dict[int, list[int]] = {}
        self._before: dict[int, Boxes] = {}

    @master_only
    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        if not hasattr(loop, 'scenario'):
            raise RuntimeError(
                f'ForgettingPicturesHook draws forgetting tasks, which {type(loop).__name__} does '
                "not have. Use it with train_cfg.type='mmforget.ContinualForgettingLoop'."
            )
        if runner.val_loop is None:
            return  # No validation images: the loop has warned already.
        dataset = runner.val_dataloader.dataset
        classes = dataset.metainfo['classes']
        held = [
            {classes[label] for label in ground_truth(dataset, image).labels}
            for image in range(len(dataset))
        ]
        self._chosen = {
            task.index: choose_images(held, task.classes, self.images)
            for task in loop.scenario.tasks
        }
        path = Path(runner.work_dir) / FOLDER / _LOADED
        if loop.task_index == 0 and loop.task_step == 0:
            needed = sorted({image for images in self._chosen.values() for image in images})
            self._before = detect(runner.model, dataset, needed)
            save_detections(path, self._before)
        elif path.is_file():
            self._before = load_detections(path)
        else:
            runner.logger.warning(
                f'{path} is missing, so the panels show no detections of the loaded detector: the '
                'run was begun without ForgettingPicturesHook.'
            )

    @master_only
    def after_forgetting_evaluation(
        self, runner: Runner, task: ForgettingTask, row: ResultsRow
    ) -> None:
        try:
            self._draw(runner, task)
        except Exception as error:  # Tasks are still due, and all of them are worth more.
            runner.logger.warning(
                f'The pictures of {task.name} are incomplete: {type(error).__name__}: {error}'
            )

    def _draw(self, runner: Runner, task: ForgettingTask) -> None:
        folder = Path(runner.work_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        figures = result_pictures({'tasks': runner.train_loop.rows}, last_only=True)
        for name, figure in figures.items():
            _publish(runner, folder / f'{name}.png', figure)
        if self._chosen:
            name = f'{task.name}_detections'
            _publish(runner, folder / f'{name}.png', self._panel(runner, task))

    def _panel(self, runner: Runner, task: ForgettingTask) -> Figure:
        dataset = runner.val_dataloader.dataset
        chosen = self._chosen[task.index]
        after = detect(runner.model, dataset, chosen)
        images = [
            _panel_image(dataset, image, self._before.get(image), after[image]) for image in chosen
        ]
        return detection_panel(task, dataset.metainfo['classes'], images, self.score_threshold)


def _panel_image(dataset: Any, image: int, before: Boxes | None, after: Boxes) -> PanelImage:
    path = dataset.get_data_info(image)['img_path']
    content = get(path, backend_args=getattr(dataset, 'backend_args', None))
    pixels = mmcv.imfrombytes(content, channel_order='rgb')
    return PanelImage(Path(path).name, pixels, ground_truth(dataset, image), before, after)


def _publish(runner: Runner, path: Path, figure: Figure) -> None:
    """Into the work dir, and to the Visualizer's backends on the axis of all steps."""
    pixels = figure_pixels(figure)
    with atomic_file(path) as file:
        file.write(encode_png(pixels))
    # With its ending: MLflow tells the format by it.
    runner.visualizer.add_image(path.name, pixels, step=runner.iter)
