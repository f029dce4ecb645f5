"""What a run needs to go on after a kill, and where it lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tspcli.core.files import duplicate
from tspcli.core.run_dir import require_same
from tspcli.core.text import MALFORMED
from tspcli.encoders.checkpoints import BEST_CHECKPOINT, load_checkpoint, save_checkpoint
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.encoders.tsp_model import TspModel
from tspcli.errors import TrainingError
from tspcli.pretraining.optim import ScheduledOptimizer
from tspcli.pretraining.training_log import EpochResult
from tspcli.pretraining.training_recipe import Recipe
from tspcli.sampling import Sampling

LAST_CHECKPOINT = "last.pth"
RECIPE_FILE = "recipe.toml"
STATE_VERSION = 1


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        epoch: The current epoch, counted from 0.
        step: Steps done in it.
        sums: Of this epoch's training figures so far: losses times clips, and hits.
        history: Results of the epochs that ended.
        best_epoch: Counted from 0; -1 before the first validation.
        best_score: Its mean accuracy.
        train_s: Seconds of training in this epoch so far.
        waited_s: Seconds of these spent waiting for clips.
        unreadable: Clips of this epoch's training so far that could not be read, by video.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 6)
    history: list[EpochResult] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -1.0
    train_s: float = 0.0
    waited_s: float = 0.0
    unreadable: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`."""
        history = [EpochResult(**epoch) for epoch in values["history"]]
        return cls(**{**values, "history": history})


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which the run goes on."""
        return self.path / LAST_CHECKPOINT

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.path / BEST_CHECKPOINT


@dataclass
class Checkpointer:
    """Writes and reads the checkpoints of one run.

    Attributes:
        folder: Of the run.
        model: Its parameters, without wrappers.
        optimizer: Its optimiser.
        recipe: Resolved.
        class_names: Of the action head.
        sampling, preprocessing: Of the clips.
        data_digest: Of the clips that the run sees; a run goes on with the same alone.
        world_size: Devices; likewise.
        keep_epochs: Whether every epoch's checkpoint is kept.
    """

    folder: RunFolder
    model: TspModel
    optimizer: ScheduledOptimizer
    recipe: Recipe
    class_names: tuple[str, ...]
    sampling: Sampling
    preprocessing: Preprocessing
    data_digest: str
    world_size: int
    keep_epochs: bool = False

    def save(self, state: RunState) -> None:
        """Store where the run stands; the file is whole at any instant."""
        self._write(self.folder.last, state)

    def save_epoch(self, state: RunState, ended: EpochResult) -> None:
        """Store the end of an epoch, and its weights if they are the best so far.

        The best weights come first: if the run is killed in between, it goes on from before the
        validation, comes to the same result and writes them again.
        """
        written: Path | None = None
        targets = [self.folder.best] if ended.best else []
        if self.keep_epochs:
            targets.append(self.folder.path / f"epoch_{ended.epoch}.pth")
        for target in [*targets, self.folder.last]:
            if written is None:
                self._write(target, state)
                written = target
            else:
                duplicate(written, target)

    def _write(self, path: Path, state: RunState) -> None:
        # The official resuming begins with the epoch after the one named.
        finished = state.epoch - 1
        save_checkpoint(
            path,
            self.model,
            backbone=self.recipe.backbone,
            class_names=self.class_names if "action" in self.recipe.heads else None,
            sampling=self.sampling,
            preprocessing=self.preprocessing,
            args=self._official_args(),
            extra={
                **self.optimizer.state_dicts(),
                "epoch": finished,
                "run": {
                    "version": STATE_VERSION,
                    "recipe": self.recipe.to_dict(),
                    "data_digest": self.data_digest,
                    "world_size": self.world_size,
                    "state": state.to_dict(),
                },
            },
        )

    def _official_args(self) -> dict[str, Any]:
        columns = {"action": "action-label", "region": "temporal-region-label"}
        recipe = self.recipe
        return {
            "label_columns": [columns[head] for head in recipe.heads],
            "loss_alphas": [getattr(recipe, f"{head}_alpha") for head in recipe.heads],
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
        """Go on where the run stopped.

        Returns:
            The state; None if the run was killed before its first checkpoint.

        Raises:
            TrainingError: If the run was started with another recipe, other data or another number
                of devices.
            CheckpointError: If the checkpoint is damaged.
        """
        if not self.folder.last.exists():
            return None
        checkpoint = load_checkpoint(self.folder.last, self.recipe.backbone)
        where = str(self.folder.path)
        run = checkpoint.extra.get("run")
        if not isinstance(run, dict) or run.get("version") != STATE_VERSION:
            raise TrainingError(
                f"{self.folder.last} cannot be gone on from by this version.",
                remedy="Start a new run from it: --init.",
            )
        try:
            require_same(run["recipe"], self.recipe.to_dict(), where)
            if run["world_size"] != self.world_size:
                raise TrainingError(
                    f"{where} was started on {run['world_size']} devices, not {self.world_size}.",
                    remedy="Resume on as many, or give another --out.",
                )
            if run["data_digest"] != self.data_digest:
                raise TrainingError(
                    f"{where} was started with other segments or videos.",
                    remedy="Resume with the same tables, labels and global features.",
                )
            checkpoint.load_into(self.model)
            self.optimizer.load_state_dicts(checkpoint.extra)
            return RunState.from_dict(run["state"])
        # Contents that do not fit each other; torch has a RuntimeError for wrong shapes.
        except (*MALFORMED, RuntimeError) as error:
            raise TrainingError(
                f"{self.folder.last} is damaged ({type(error).__name__}: {error}).",
                remedy="Start a new run from its best checkpoint: --init.",
            ) from error
