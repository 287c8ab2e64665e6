"""Forgetting without writing a config: checked first, then planned or done."""

import copy
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmforget.adapters import find_targets, head_layers, transformer_blocks
from mmforget.apis.data_configs import missing_file, parts_of
from mmforget.apis.forgetting_config import (
    BACKBONE_AND_HEAD,
    CONVOLUTIONAL,
    ForgettingConfig,
    build_forgetting_config,
    drop_validation,
    load_config,
    name_run,
    rest_trackers,
)
from mmforget.apis.replaced_run import replaced_run, run_files
from mmforget.apis.request import ForgettingRequest, read_request
from mmforget.engine import RunPreview
from mmforget.engine.checkpoints import RESUME_FILE
from mmforget.engine.results import FILE_NAME, atomic_file, read_results
from mmforget.models.checkpoints import SCHEME, find_weights
from mmforget.taps import build_tap
from mmforget.visualization.tables import demo_table, text_table

Classes = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class ForgettingPlan:
    """What a dry run found.

    Attributes:
        preview: Tasks, images, groups, share of the weights, times.
        notes: What of the user's config would be changed beyond the recipe.
    """

    preview: RunPreview
    notes: tuple[str, ...]

    def __str__(self) -> str:
        preview = self.preview
        rows = [
            [
                task.name,
                ', '.join(task.classes),
                *(f'{task.images[s]} of {task.candidates[s]}' for s in ('forget', 'retain')),
            ]
            for task in preview.tasks
        ]
        header = ('task', 'forgets', 'forget images', 'retain images')
        which = 'candidates, of which each task chooses' if preview.chosen_later else 'all trained'
        at_most = 'at most ' if preview.chosen_later else ''
        minutes = (preview.training_seconds + preview.validation_seconds) / 60
        lines = [
            text_table(header, rows),
            f'Groups ({which}): {", ".join(preview.groups)}.',
            f'Layers: {len(preview.layers)}, from {preview.layers[0]} to {preview.layers[-1]}.',
            f'Weights that may move: {preview.trainable}, '
            f'{at_most}{100 * preview.share:.2f} % of the detector.',
            f'Expected time: {at_most}about {minutes:.1f} min ({preview.training_seconds:.0f} s '
            f'training, {preview.validation_seconds:.0f} s inference on '
            f'{preview.validation_images} validation images, once before and after each task). '
            'Extrapolated from three real steps with all groups and one validation batch on this '
            "machine; reading the annotations, loading images and COCO's matching are not in it.",
        ]
        return '\n'.join([*lines, *(f'Note: {note}' for note in self.notes)])


@dataclass(frozen=True)
class ForgettingResult:
    """What a run left behind.

    Attributes:
        checkpoint: The plain detector after the last task.
        work_dir: Everything else: a detector and adapters per task, the results file, the log.
        results: The content of ``forgetting.json``.
        notes: What of the user's config was changed beyond the recipe.
    """

    checkpoint: Path
    work_dir: Path
    results: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether there were validation data."""
        return all(row['full'] for row in self.results['tasks'])

    def __str__(self) -> str:
        lines = [demo_table({'GS-LoRA': self.results})]
        if not self.measured:
            lines.append('Nothing was measured: there were no validation data.')
        lines.append(f'{self.checkpoint} is the detector; everything else is in {self.work_dir}.')
        return '\n'.join([*lines, *(f'Note: {note}' for note in self.notes)])


@dataclass(frozen=True)
class PreparedForgetting:
    """A checked request: nothing was written yet, and what can be known to fail has failed.

    Attributes:
        config: The forgetting config.
        notes: What of the user's config was changed beyond the recipe.
        out: Where the plain detector goes.
        work_dir: Where everything else goes.
        resume: Whether the run in the work dir is gone on with.
    """

    config: Config
    notes: tuple[str, ...]
    out: Path
    work_dir: Path
    resume: bool = False

    def plan(self) -> ForgettingPlan:
        """Takes a few real steps in memory; leaves no file behind."""
        config = copy.deepcopy(self.config)
        name_run(config, 'forget')
        config.train_cfg.type = 'mmforget.PreviewLoop'
        rest_trackers(config)
        config.log_level = 'WARNING'  # The plan itself is what people want to see.
        with tempfile.TemporaryDirectory() as folder:
            config.work_dir = folder
            runner = Runner.from_cfg(config)
            runner.train()
            return ForgettingPlan(runner.train_loop.preview, self.notes)

    def forget(self) -> ForgettingResult:
        """Runs all tasks; the detector appears at ``out`` whole, or not at all.

        A run that is replaced is gone when the new one has ended, and back if it ends before its
        first task has.
        """
        config = copy.deepcopy(self.config)
        name_run(config, 'forget')
        config.work_dir = str(self.work_dir)
        if self.resume:
            # As MMDetection's --resume: the checkpoint is looked up in the work dir.
            config.resume, config.load_from = True, None
            self._train(config)
        else:
            with replaced_run(self.work_dir):
                self._train(config)
        results = read_results(self.work_dir / FILE_NAME)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        last = self.work_dir / f'task_{len(results["tasks"])}.pth'
        with last.open('rb') as source, atomic_file(self.out) as target:
            shutil.copyfileobj(source, target)
        return ForgettingResult(self.out, self.work_dir, results, self.notes)

    def _train(self, config: Config) -> None:
        runner = Runner.from_cfg(config)
        for note in self.notes:
            runner.logger.warning(note)
        runner.train()


def prepare(
    config: str | Path | Config,
    checkpoint: str | Path,
    classes: Classes | None = None,
    out: str | Path = 'forgotten.pth',
    *,
    request: str | Path | ForgettingRequest | None = None,
    data_root: str | Path | None = None,
    work_dir: str | Path | None = None,
    steps: int | None = None,
    retain_images: int | None = None,
    retain_ratio: float | None = None,
    few_shot: int | None = None,
    seed: int | None = None,
    evaluate: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> PreparedForgetting:
    """Checks everything that can be checked without work; arguments as for :func:`forget`.

    Raises:
        ValueError: A class, a setting, the config or the detector does not do.
        OSError: The checkpoint or the annotations are not there, or ``out`` or the work dir
            exists or cannot be written.
    """
    wanted = _read_request(
        classes,
        request,
        steps=steps,
        retain_images=retain_images,
        retain_ratio=retain_ratio,
        few_shot=few_shot,
        seed=seed,
    )
    out = Path(out)
    work_dir = out.parent / f'{out.stem}_work_dir' if work_dir is None else Path(work_dir)
    _check_out(out, overwrite)
    _check_work_dir(work_dir, overwrite, resume)
    _check_checkpoint(str(checkpoint))
    _check_inputs_stay([checkpoint, request], work_dir, overwrite)
    built = build_forgetting_config(
        load_config(config), str(checkpoint), wanted, data_root, evaluate, cfg_options
    )
    _check_annotations(built)
    _check_detector(built, chosen=any(key.startswith('custom_hooks') for key in cfg_options or ()))
    return PreparedForgetting(built.config, tuple(built.notes), out, work_dir, resume)


def forget(
    config: str | Path | Config,
    checkpoint: str | Path,
    classes: Classes | None = None,
    out: str | Path = 'forgotten.pth',
    **settings: Any,
) -> ForgettingResult:
    """Makes a trained detector forget classes and keep the others.

    Args:
        config: The config the detector was trained with: a path, ``'mmdet::...'``, a work dir
            with a dumped config, or a Config.
        checkpoint: The trained detector's: a path, a URL or ``'mmforget://...'``.
        classes: Class names (one task), or a list of such lists (one task each, in order).
        out: Where the plain detector goes; it loads where mmforget is not installed.
        **settings: ``request`` (a request file or a ForgettingRequest instead of ``classes``),
            ``data_root`` (replaces that of the config), ``work_dir`` (default: beside ``out``),
            ``steps`` per task (by family, 80 or 400), ``retain_images`` (by family, 400 or 2,000),
            ``retain_ratio`` or ``few_shot`` (images per class in both streams), ``seed`` (42),
            ``evaluate`` (True), ``overwrite`` (False), ``resume`` (False; goes on with the run in
            the work dir),
            ``cfg_options`` (merged into the forgetting config). Settings that are given win over
            those of the request.

    Returns:
        The checkpoint's path, the work dir and the results; ``print`` shows them as a table.

    Raises:
        ValueError: A class, a setting, the config or the detector does not do.
        OSError: A file is not there, or ``out`` or the work dir exists or cannot be written.
    """
    return prepare(config, checkpoint, classes, out, **settings).forget()


def plan(
    config: str | Path | Config,
    checkpoint: str | Path,
    classes: Classes | None = None,
    out: str | Path = 'forgotten.pth',
    **settings: Any,
) -> ForgettingPlan:
    """Says what :func:`forget` would do with the same arguments; writes nothing."""
    return prepare(config, checkpoint, classes, out, **settings).plan()


def _read_request(
    classes: Classes | None, request: str | Path | ForgettingRequest | None, **settings: Any
) -> ForgettingRequest:
    if (classes is None) == (request is None):
        both = 'both' if request is not None else 'neither'
        raise ValueError(f'Got {both} of classes and a request; give exactly one of them.')
    given = {name: value for name, value in settings.items() if value is not None}
    if request is None:
        return ForgettingRequest(classes, **given)
    if not isinstance(request, ForgettingRequest):
        request = read_request(request)
    sizes = ('retain_images', 'retain_ratio', 'few_shot')
    if any(name in given for name in sizes):
        # The size that is given replaces the request's, whatever its kind.
        given = {**dict.fromkeys(sizes), **given}
    return replace(request, **given)


def _check_out(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise IsADirectoryError(f'--out {out} is a folder; expected the name of a file.')
    if out.exists() and not overwrite:
        raise FileExistsError(f'--out {out} exists. Name another file, or give --overwrite.')
    _check_writable(out.parent, f'--out {out}')


def _check_work_dir(work_dir: Path, overwrite: bool, resume: bool) -> None:
    there = run_files(work_dir)
    if resume and not (work_dir / RESUME_FILE).is_file():
        raise FileNotFoundError(
            f'The work dir {work_dir} holds no {RESUME_FILE}, so there is no run to go on with. '
            'Start without --resume.'
        )
    if there and not overwrite and not resume:
        raise FileExistsError(
            f'The work dir {work_dir} holds another run. Go on with it by --resume and its '
            'settings, give --work-dir, or --overwrite to replace that run.'
        )
    _check_writable(work_dir, f'the work dir {work_dir}')


def _check_inputs_stay(inputs: Sequence[Any], work_dir: Path, overwrite: bool) -> None:
    """What the run reads must not be part of the run that it replaces."""
    if not overwrite:
        return
    replaced = {path.resolve() for path in run_files(work_dir)}
    for name in inputs:
        if isinstance(name, (str, Path)) and Path(name).resolve() in replaced:
            raise ValueError(
                f'{name} belongs to the run in {work_dir}, which --overwrite would remove. Give '
                'another --work-dir, or copy the file elsewhere first.'
            )


def _check_writable(folder: Path, what: str) -> None:
    """Tries it on the nearest folder that exists; permissions alone do not tell."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(
            error.errno, f'{what} cannot be written: {error.strerror}', str(folder)
        ) from None


def _check_checkpoint(checkpoint: str) -> None:
    if checkpoint.startswith(SCHEME):
        find_weights(checkpoint.removeprefix(SCHEME))
    elif '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise FileNotFoundError(
            f'The checkpoint {checkpoint!r} does not exist; expected the file of a trained '
            f'detector, a URL, or {SCHEME}<name>.'
        )


def _check_annotations(built: ForgettingConfig) -> None:
    """Training annotations must be there; without validation annotations nothing is measured."""
    config = built.config
    for part in parts_of(config.train_dataloader.dataset):
        path = missing_file(part)
        if path:
            raise FileNotFoundError(
                f'The training annotations {path!r} do not exist (current folder: {os.getcwd()}). '
                'Say where the data are with --data-root, or with --cfg-options '
                'train_dataloader.dataset.ann_file=...'
            )
    if not config.get('val_dataloader'):
        return
    for part in parts_of(config.val_dataloader.dataset):
        path = missing_file(part)
        if path:
            drop_validation(config)
            built.notes.append(
                f'The validation annotations {path!r} do not exist: nothing is measured.'
            )
            return


def _check_detector(built: ForgettingConfig, chosen: bool) -> None:
    """Builds the detector once, without weights: can it be read, and has it the layers?

    Args:
        built: Where the detector has no transformer blocks, its adapters go to its convolutions;
            where only its backbone has, to its heads, too.
        chosen: The user says where adapters go.
    """
    config = built.config
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        # Detectors write into the config they are built from.
        detector = MODELS.build(copy.deepcopy(config.model))
    try:
        build_tap(detector)
    except TypeError as error:
        raise ValueError(str(error)) from None
    for hook in config.custom_hooks:
        if 'targets' not in hook:
            continue
        if hook.targets == 'ffn' and not chosen:
            _place_adapters(hook, detector, built.notes)
        find_targets(detector, hook['targets'])


def _place_adapters(hook: Any, detector: nn.Module, notes: list[str]) -> None:
    """Where the feed-forward networks are not all, or none, of what may forget."""
    blocks = transformer_blocks(detector)
    name = type(detector).__name__
    if not blocks:
        hook.update(CONVOLUTIONAL)
        notes.append(
            f'{name} has no transformer blocks: adapters go to its convolutions, in groups by '
            'stage.'
        )
    elif all(block.startswith('backbone.') for block in blocks) and head_layers(detector):
        hook.update(BACKBONE_AND_HEAD)
        notes.append(
            f'{name} has transformer blocks in its backbone alone: adapters go to its heads, too.'
        )
