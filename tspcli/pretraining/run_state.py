"""A run on the disk: the files of its folder, and the checkpoint from which it resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tspcli.annotations.segments import write_label_mapping
from tspcli.core.files import duplicate, replacing
from tspcli.core.run_dir import RunDir, require_same
from tspcli.core.settings import parse_toml, read_toml_text, to_toml
from tspcli.core.text import MALFORMED, parse_json
from tspcli.core.version import __version__
from tspcli.encoders.checkpoints import load_checkpoint, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import TspModel
from tspcli.encoders.weights import BEST_CHECKPOINT
from tspcli.errors import TrainingError, UsageError
from tspcli.pretraining.data import RunContext, RunData
from tspcli.pretraining.optim import ScheduledOptimizer
from tspcli.pretraining.training_log import (
    CURVES_FILE,
    RESULTS_FILE,
    TENSORBOARD_FOLDER,
    EpochResult,
)
from tspcli.pretraining.training_recipe import Recipe

LAST_CHECKPOINT = "last.pth"
RECIPE_FILE = "recipe.toml"
LABELS_FILE = "action_label_mapping.json"
UNREADABLE_FILE = "unreadable.json"
_FILES = (
    *(RECIPE_FILE, LAST_CHECKPOINT, BEST_CHECKPOINT, RESULTS_FILE, UNREADABLE_FILE, LABELS_FILE),
    CURVES_FILE,
)
STATE_VERSION = 2
_READABLE_VERSIONS = (1, 2)
_SUMS_OF_VERSION_1 = (
    *("action_loss", "region_loss", "action_right", "action_clips"),
    *("region_right", "region_clips"),
)


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        epoch: The current epoch, counted from 0.
        step: Steps done in it.
        figures: [sum, count] of this epoch's training figures so far by name.
        history: Results of the epochs that ended.
        best_epoch: Counted from 0; -1 before the first validation.
        best_score: Its mean accuracy.
        train_s: Seconds of training in this epoch so far.
        waited_s: Seconds of these spent waiting for clips.
        unreadable: Clips of this epoch's training so far that could not be read, by video.
    """

    epoch: int = 0
    step: int = 0
    figures: dict[str, list[float]] = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -1.0
    train_s: float = 0.0
    waited_s: float = 0.0
    unreadable: dict[str, int] = field(default_factory=dict)

    def begin_epoch(self, ended: EpochResult) -> None:
        """Move on to the next epoch."""
        self.history.append(ended)
        if ended.best:
            self.best_epoch, self.best_score = ended.epoch, ended.score
        self.epoch += 1
        self.step = 0
        self.figures, self.unreadable = {}, {}
        self.train_s = self.waited_s = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`; reads states of version 0.1 too."""
        values = dict(values)
        if "sums" in values:
            old = dict(zip(_SUMS_OF_VERSION_1, values.pop("sums"), strict=True))
            values["figures"] = {
                f"{head}_{what}": [old[f"{head}_{total}"], old[f"{head}_clips"]]
                for head in ("action", "region")
                for what, total in (("loss", "loss"), ("accuracy", "right"))
            }
        values["history"] = [EpochResult(**epoch) for epoch in values["history"]]
        return cls(**values)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.path / LAST_CHECKPOINT

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.path / BEST_CHECKPOINT

    def check(self, context: RunContext, *, resume: bool, overwrite: bool) -> None:
        """See that a run can begin or resume here, and write nothing yet.

        Raises:
            TrainingError: If the folder holds a run, and that is not to be resumed or had other
                settings; or if it holds files of no run that this one would replace.
            UsageError: If one of the run's inputs would be replaced.
        """
        recipe, own = context.recipe, self._own(context.recipe)
        if overwrite:
            if self.path.exists() and not self.path.is_dir():
                raise TrainingError(f"{self.path} is a file, not a folder.", path=self.path)
            self._refuse_inputs({*own.present(), *self.path.glob("epoch_*.pth")}, context)
        else:
            own.require_own(_recipe_values, _stored_form(recipe.to_dict()), resume=resume)

    def frames(self, recipe: Recipe) -> Preprocessing | None:
        """The preprocessing that a run which is resumed began with; None if it stored nothing.

        Raises:
            CheckpointError: If its checkpoint is damaged.
        """
        if not self.last.exists():
            return None
        return load_checkpoint(self.last, recipe.backbone).preprocessing

    def _own(self, recipe: Recipe) -> RunDir:
        epochs = (f"epoch_{number}.pth" for number in range(recipe.epochs))
        return RunDir(self.path, RECIPE_FILE, (*_FILES, *epochs))

    def _refuse_inputs(self, present: set[Path], context: RunContext) -> None:
        inputs, recipe = context.inputs, context.recipe
        given = {
            "--train": inputs.train,
            "--valid": inputs.valid,
            "--labels": inputs.labels,
            "--gvf": inputs.gvf,
            "--init": Path(recipe.init),
            "--gvf-weights": Path(recipe.gvf_weights) if recipe.gvf_weights else None,
        }
        replaced = {self.path.resolve(), *(file.resolve() for file in present)}
        for option, source in given.items():
            if source is not None and source.exists() and source.resolve() in replaced:
                raise UsageError(
                    f"{option} {source} lies in --out {self.path}, which would be emptied.",
                    remedy="Give another --out.",
                    option=option,
                    path=source,
                )

    def open(
        self,
        context: RunContext,
        labels: list[str],
        left_out: Mapping[str, str],
        precision: str,
        overwrite: bool = False,
    ) -> ExitStack:
        """Lock the folder and write down which run it holds, and in which precision it computes.

        The recipe comes first: with it the folder is known as this run's if the run is killed here.

        Returns:
            Closed, it releases the lock.
        """
        path = self.path
        stack = ExitStack()
        stack.enter_context(self._own(context.recipe).opened(overwrite=overwrite))
        if overwrite:
            for file in path.glob("epoch_*.pth"):
                file.unlink(missing_ok=True)
            shutil.rmtree(path / TENSORBOARD_FOLDER, ignore_errors=True)
        content = {
            **context.recipe.to_dict(),
            "tool_version": __version__,
            "execution": {**context.execution.to_dict(), "precision": precision},
        }
        with replacing(path / RECIPE_FILE) as aside:
            aside.write_text(
                "# The resolved recipe of this run.\n" + to_toml(content), encoding="utf-8"
            )
        with replacing(path / LABELS_FILE) as aside:
            write_label_mapping(aside, labels)
        with replacing(path / UNREADABLE_FILE) as aside:
            aside.write_text(json.dumps(dict(left_out), indent=1) + "\n", encoding="utf-8")
        return stack

    def left_out(self) -> dict[str, str] | None:
        """The videos that the run began without, with the reasons; None if it has not begun.

        Raises:
            TrainingError: If the file is damaged.
        """
        file = self.path / UNREADABLE_FILE
        if not file.is_file() or not (self.path / RECIPE_FILE).is_file():
            return None
        try:
            known = parse_json(file.read_text("utf-8"))
            if not isinstance(known, dict):
                raise TypeError("not a table")
        except MALFORMED as error:
            raise TrainingError(
                f"{file}, which lists the videos that the run began without, is damaged ({error}).",
                remedy="Write them there as {name: reason}, or {} if it left none out; or give "
                "another --out.",
                path=file,
            ) from error
        return {str(name): str(reason) for name, reason in known.items()}


def read_run_recipe(folder: str | Path) -> Recipe:
    """The recipe of a run's folder.

    Raises:
        UsageError: If the folder holds no run.
    """
    path = Path(folder) / RECIPE_FILE
    if not path.is_file():
        raise UsageError(f"{folder} is not a run's folder: it has no {RECIPE_FILE}.", path=folder)
    return Recipe.from_dict(_recipe_values(path))


def _recipe_values(path: Path) -> dict[str, Any]:
    content = parse_toml(read_toml_text(path), str(path))
    return _stored_form(
        {k: v for k, v in content.items() if k not in ("execution", "tool_version")}
    )


def _stored_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a recipe as its file gives them back, with the defaults of those that it lacks.

    A file lacks the fields that a later version added and those that were None, and some names
    cannot be written as they are.
    """
    complete = {**Recipe().to_dict(), **values}
    return parse_toml(to_toml(complete), "the recipe")


# --- checkpoints ----------------------------------------------------------------------------------


@dataclass
class Checkpointer:
    """Writes and reads the checkpoints of one run.

    Attributes:
        folder: Of the run.
        context: Its recipe, execution and devices.
        data: Its clips; a run resumes with the same ones alone.
        model: Its parameters, without wrappers.
        optimizer: Its optimiser.
    """

    folder: RunFolder
    context: RunContext
    data: RunData
    model: TspModel
    optimizer: ScheduledOptimizer
    _data_digest: str = field(init=False)

    def __post_init__(self) -> None:
        self._data_digest = self.data.digest()

    def save(self, state: RunState) -> None:
        """Store where the run stands; the file is complete at any instant."""
        self._write(self.folder.last, state)

    def save_epoch(self, state: RunState, ended: EpochResult) -> None:
        """Store the end of an epoch, and its weights if they are the best so far.

        The best weights come first: a run that is killed in between resumes before the validation,
        comes to the same result and writes them again.
        """
        written: Path | None = None
        targets = [self.folder.best] if ended.best else []
        if self.context.execution.keep_epochs:
            targets.append(self.folder.path / f"epoch_{ended.epoch}.pth")
        for target in [*targets, self.folder.last]:
            if written is None:
                self._write(target, state)
                written = target
            else:
                duplicate(written, target)

    def _write(self, path: Path, state: RunState) -> None:
        recipe = self.context.recipe
        save_checkpoint(
            path,
            self.model,
            backbone=recipe.backbone,
            class_names=tuple(self.data.labels) if "action" in recipe.heads else None,
            sampling=self.data.sampling,
            preprocessing=self.data.preprocessing,
            args=self._official_args(),
            extra={
                **self.optimizer.state_dicts(),
                # The official code resumes with the epoch after the one named.
                "epoch": state.epoch - 1,
                "run": {
                    "version": STATE_VERSION,
                    "recipe": recipe.to_dict(),
                    "data_digest": self._data_digest,
                    "world_size": self.context.devices.world_size,
                    "state": state.to_dict(),
                },
            },
        )

    def _official_args(self) -> dict[str, Any]:
        columns = {"action": "action-label", "region": "temporal-region-label"}
        recipe = self.context.recipe
        return {
            "label_columns": [columns[head] for head in recipe.heads],
            "loss_alphas": [recipe.alphas[head] for head in recipe.heads],
            "clip_len": recipe.clip_length,
            "frame_rate": float(recipe.rate),
            "clips_per_segment": recipe.clips_per_segment,
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "backbone_lr": recipe.backbone_lr,
            "fc_lr": recipe.head_lr,
            "lr_warmup_epochs": recipe.warmup_epochs,
            "lr_milestones": list(recipe.milestones),
            "lr_gamma": recipe.gamma,
            "momentum": recipe.momentum,
            "weight_decay": recipe.weight_decay,
        }

    def resume(self) -> RunState | None:
        """Load what the run stored last.

        Returns:
            The state; None if the run was killed before its first checkpoint.

        Raises:
            TrainingError: If the run was started with another recipe, other data or another number
                of devices.
            CheckpointError: If the checkpoint is damaged.
        """
        file = self.folder.last
        if not file.exists():
            return None
        recipe, world_size = self.context.recipe, self.context.devices.world_size
        checkpoint = load_checkpoint(file, recipe.backbone)
        where = str(self.folder.path)
        run = checkpoint.extra.get("run")
        if not isinstance(run, dict) or run.get("version") not in _READABLE_VERSIONS:
            raise TrainingError(
                f"This version cannot resume from {file}.",
                remedy="Start a new run from it: --init.",
                path=file,
            )
        try:
            require_same(_stored_form(run["recipe"]), _stored_form(recipe.to_dict()), where)
            if run["world_size"] != world_size:
                raise TrainingError(
                    f"{where} was started on {run['world_size']} devices, not {world_size}.",
                    remedy="Resume on as many, or give another --out.",
                    world_size=run["world_size"],
                )
            if run["data_digest"] != self._data_digest:
                raise TrainingError(
                    f"{where} was started with other segments or videos.",
                    remedy="Resume with the same tables, labels and global features.",
                    differs="data",
                )
            checkpoint.load_into(self.model)
            self.optimizer.load_state_dicts(checkpoint.extra)
            return RunState.from_dict(run["state"])
        # Contents that do not fit each other; torch has a RuntimeError for wrong shapes.
        except (*MALFORMED, RuntimeError) as error:
            raise TrainingError(
                f"{file} is damaged ({type(error).__name__}: {error}).",
                remedy="Start a new run from its best checkpoint: --init.",
                path=file,
            ) from error
