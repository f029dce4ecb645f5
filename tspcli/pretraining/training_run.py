"""``pretrain``: tables and videos in, a trained encoder out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from tspcli.core.problems import Problems
from tspcli.core.progress import Reporter
from tspcli.core.text import counted, first_line
from tspcli.encoders import Heads, TspModel
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.checkpoints import load_checkpoint
from tspcli.encoders.precision import arithmetic, resolve_precision
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.weights import list_weights, locate
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.data import RunContext, RunData, RunInputs, initial_input, load_data
from tspcli.pretraining.distributed import Devices, find_placement
from tspcli.pretraining.epoch_loop import Loop
from tspcli.pretraining.gvf_lookup import with_gvf_weights
from tspcli.pretraining.loader import BatchFeed, choose_workers
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.precheck import prepare_videos
from tspcli.pretraining.run_state import Checkpointer, RunFolder, RunState
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_log import (
    EPOCHS,
    PretrainReport,
    RunInfo,
    TensorBoard,
    draw_curves,
    write_results,
)
from tspcli.pretraining.training_recipe import (
    PRETRAINED,
    RANDOM,
    Execution,
    Recipe,
    load_recipe,
)


def pretrain(
    videos: str | Path | Iterable[str | Path],
    train: str | Path,
    valid: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | str | Path | None = None,
    execution: Execution | None = None,
    labels: str | Path | None = None,
    gvf: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    stop_requested: Callable[[], bool] | None = None,
) -> PretrainReport:
    """Train an encoder on untrimmed videos.

    In a process that ``torchrun`` or ``srun`` started, this is one of several that train together.

    Args:
        videos: Folders of the videos, searched with their subfolders.
        train: Ground-truth table of training, in the official columns.
        valid: Likewise of validation.
        out: The run's folder.
        recipe: What is learned; a :class:`Recipe`, the name of one, or a TOML file.
        execution: How it is computed.
        labels: Label mapping (JSON list); the sorted classes of the training table if not given.
        gvf: Global video features (see ``tsp gvf``), if the recipe wants them.
        resume: Resume the run that ``out`` holds; start one if it holds none.
        overwrite: Delete what a run left in ``out``, and start.
        reporter: Receives the progress of the run, on the first process: the tasks of
            :mod:`tspcli.pretraining.training_log`, and as results a :class:`RunInfo` at the start
            and an :class:`EpochResult` per epoch.
        stop_requested: Asked before every step, on every process; if it says yes, the run stores
            where it stands and returns. The reporter's by default.

    Returns:
        The results of all epochs.

    Raises:
        UsageError, AnnotationError, TrainingError, StoreError, WeightsError, CheckpointError: If
            the inputs do not fit together, before anything is computed; a TrainingError with all
            ``problems`` if several do not. TrainingError also if a clip cannot be read or a loss
            is not finite.

    Example:
        >>> report = pretrain("videos/", "train.csv", "valid.csv", "run/",  # doctest: +SKIP
        ...                   recipe="tac-activitynet")
        >>> report.best_epoch, round(report.best_score, 3)                  # doctest: +SKIP
        (5, 0.731)
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe) if recipe is not None else load_recipe()
    if resume and overwrite:
        raise UsageError("A run cannot be resumed and overwritten.")
    execution = execution or Execution()
    folders = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    inputs = RunInputs(
        videos=tuple(map(Path, folders)),
        train=Path(train),
        valid=Path(valid),
        labels=Path(labels) if labels is not None else None,
        gvf=Path(gvf) if gvf is not None else None,
    )
    placement = find_placement(os.environ)
    devices = Devices(placement, execution.device)
    reporter = reporter or Reporter()
    watched = reporter if devices.is_first else Reporter()
    with ExitStack() as stack:
        stack.enter_context(devices)
        folder = RunFolder(Path(out))
        with devices.failing_together():
            context, data = _checked(
                RunContext(inputs, recipe, execution, devices, watched),
                folder,
                resume=resume,
                overwrite=overwrite,
            )
        asked = stop_requested or reporter.stop_requested
        return _run(context, data, folder, stack, asked, resume=resume, overwrite=overwrite)


def _checked(
    context: RunContext, folder: RunFolder, *, resume: bool, overwrite: bool
) -> tuple[RunContext, RunData]:
    """The run with its recipe resolved, and its data; all that is wrong is found at once."""
    recipe, inputs, execution = context.recipe, context.inputs, context.execution
    problems = Problems(TrainingError)
    notes: list[str] = []
    frames: Preprocessing | None = None
    with problems.noted():
        recipe = _resolve_init(recipe)
    with problems.noted():
        recipe, notes = with_gvf_weights(recipe, inputs.gvf)
    context = replace(context, recipe=recipe)
    with problems.noted():
        if context.devices.is_first:
            folder.check(context, resume=resume, overwrite=overwrite)
        frames = folder.frames(recipe) if resume else None
    with problems.noted():
        resolve_precision(execution.precision, context.devices.device, training=True)
    data: RunData | None = None
    with problems.noted():
        data = load_data(inputs, recipe, frames)
        if execution.on_unreadable == "stop":
            data.require_gvf()
    problems.require_none()
    assert data is not None
    clips = initial_input(recipe)[0]
    if (clips.frame_rate, clips.clip_length) != (recipe.rate, recipe.clip_length):
        origin = recipe.backbone if recipe.init == RANDOM else recipe.init
        notes.append(
            f"{origin} is made for {clips.line(strided=False)}; the recipe trains on "
            f"{data.sampling.line(strided=False)}."
        )
    return context, replace(data, notes=[*notes, *data.notes])


def _run(
    context: RunContext,
    data: RunData,
    folder: RunFolder,
    stack: ExitStack,
    stop_requested: Callable[[], bool],
    *,
    resume: bool,
    overwrite: bool,
) -> PretrainReport:
    recipe, execution = context.recipe, context.execution
    devices, reporter = context.devices, context.reporter
    precision = resolve_precision(execution.precision, devices.device, training=True)
    notes = list(data.notes)
    for note in notes:
        reporter.message(note)
    # Whatever can be wrong about the model shows before hours of caching.
    model = build_model(recipe, data, devices)
    trainer = Trainer(model, recipe, execution, devices, data.preprocessing, precision)
    known: dict[str, str] | None = None
    with devices.failing_together():
        if devices.is_first and not overwrite:
            known = folder.left_out()
    known = devices.gather(known)[0]
    data, cached, left_out = prepare_videos(data, context, known)
    with devices.failing_together():
        data.require_gvf()
        if devices.is_first:
            stack.enter_context(folder.open(context, data.labels, left_out, precision, overwrite))
    if left_out:
        notes.append(f"{counted(len(left_out), 'video')} cannot be read: {', '.join(left_out)}.")
    if cached is not None and cached.built:
        notes.append(
            f"Clip cache: {cached.gigabytes_an_hour:.2f} GB per hour of video, pixels off by at "
            f"most {cached.max_error} of 255."
        )
        reporter.message(notes[-1])
    stack.enter_context(arithmetic(devices.device, precision, training=True))
    n_steps = data.batches(recipe, devices).n_steps
    optimizer = ScheduledOptimizer(
        build_optimizer(trainer.model, recipe, devices.world_size), Schedule.of(recipe, n_steps)
    )
    checkpointer = Checkpointer(folder, context, data, trainer.model, optimizer)
    with devices.failing_together():
        stored = checkpointer.resume() if resume else None
        state = stored or RunState()
    if resume and stored is None:
        reporter.message(f"{folder.path} holds no run to resume: a new one begins.")
    reporter.result(
        RunInfo(
            out=str(folder.path),
            recipe=recipe.to_dict(),
            n_train_clips=data.plans["train"].n_samples,
            n_valid_clips=data.plans["valid"].n_samples,
            n_steps=n_steps,
            device=str(devices.device),
            precision=precision,
            world_size=devices.world_size,
            first_epoch=state.epoch,
            first_step=state.step,
            chance=data.chance,
            clips=f"{data.sampling.line(strided=False)}; {data.preprocessing.frame_spec().line()}",
        )
    )
    reporter.start(EPOCHS, recipe.epochs, state.epoch)
    tensorboard = None
    if devices.is_first:
        write_results(folder.path, state.history)
        if execution.tensorboard and TensorBoard.is_installed():
            tensorboard = TensorBoard(folder.path, state.epoch * n_steps + state.step)
            stack.callback(tensorboard.close)
    workers = choose_workers(execution.workers, devices.placement.local_size)
    feeds = {
        name: BatchFeed(data.loader(name, execution), workers, pin=devices.device.type != "cpu")
        for name in ("train", "valid")
    }
    for feed in feeds.values():
        stack.callback(feed.close)
    loop = Loop(
        context, data, trainer, optimizer, feeds, checkpointer, state, stop_requested, tensorboard
    )
    with _lost_processes_explained(devices):
        stopped = loop.run()
    if (
        devices.is_first
        and not stopped
        and draw_curves(folder.path, state.history, data.chance) is None
    ):
        notes.append("matplotlib is not installed, so the curves are not plotted.")
        reporter.message(notes[-1])
    devices.barrier()
    return PretrainReport(
        out=str(folder.path),
        epochs=state.history,
        best_epoch=state.best_epoch,
        best_score=max(state.best_score, 0.0),
        stopped=stopped,
        notes=notes,
        left_out=left_out,
    )


@contextmanager
def _lost_processes_explained(devices: Devices) -> Iterator[None]:
    """Turn a broken connection to another process into an error that says so."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        broken = ("onnection", "NCCL", "gloo", "Timed out", "remote")
        if devices.world_size == 1 or not any(word in text for word in broken):
            raise
        raise TrainingError(
            f"Another process of this run has ended, as process {devices.rank} found: "
            f"{first_line(error)}",
            remedy="See its own message for the cause, then continue with --resume.",
        ) from error


def build_model(recipe: Recipe, data: RunData, devices: Devices) -> TspModel:
    """The model with its initial weights; heads are always fresh, drawn from the recipe's seed.

    Raises:
        WeightsError, CheckpointError: If the initial weights cannot be had.
    """
    heads = Heads(
        n_actions=len(data.labels) if "action" in recipe.heads else None,
        region="region" in recipe.heads,
        gvf_dim=data.gvf_dim,
    )
    torch.manual_seed(recipe.seed)
    model = TspModel(recipe.backbone, heads)
    if recipe.init != RANDOM:
        # One process a machine fetches what is missing; the others find it there.
        with devices.failing_together():
            if devices.placement.local_rank == 0:
                locate(recipe.init)
        with devices.failing_together():
            located = locate(recipe.init)
            load_checkpoint(located.path, recipe.backbone).load_into(model, heads=False)
    return model


def _resolve_init(recipe: Recipe) -> Recipe:
    """Replace ``pretrained`` by the name of the backbone's Kinetics weights."""
    backbone_spec(recipe.backbone)  # refuses what is none
    if recipe.init != PRETRAINED:
        return recipe
    named = [entry.name for entry in list_weights() if entry.backbone == recipe.backbone]
    plain = [name for name in named if name.endswith("kinetics400")]
    if not plain:
        choices = [f"`--init {name}`" for name in (*named, RANDOM)]
        raise UsageError(
            f"There are no Kinetics weights of {recipe.backbone}.",
            remedy=f"Give --init with a checkpoint, or {' or '.join(choices)}.",
            option="init",
            value=recipe.backbone,
        )
    return replace(recipe, init=plain[0])
