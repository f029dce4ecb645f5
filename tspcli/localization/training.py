"""Training a localizer on a feature store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tspcli.annotations import AnnotationOrigin, Annotations
from tspcli.core.arithmetic import cuda_arithmetic
from tspcli.core.devices import resolve_device
from tspcli.core.files import replacing
from tspcli.core.progress import Reporter
from tspcli.core.run_dir import RunDir
from tspcli.core.text import MALFORMED, clock, counted, parse_json
from tspcli.errors import CheckpointError, TrainingError
from tspcli.localization import localizer as checkpoints
from tspcli.localization.boundary_matching import Bmn, bmn_loss
from tspcli.localization.classes import ClassHead, train_class_head
from tspcli.localization.feature_windows import (
    LocalizationVideo,
    Paths,
    annotated_videos,
    open_features,
)
from tspcli.localization.localize_config import PRECISION, TrainConfig
from tspcli.localization.localizer import Localizer, localizer_state
from tspcli.localization.training_windows import TrainingWindows, class_samples
from tspcli.sampling import Sampling
from tspcli.store.store_set import StoreSet

CONFIG = "config.json"
LOG = "log.json"
FILES = (CONFIG, checkpoints.BEST, checkpoints.LAST, LOG)
"""All that a run writes into its folder."""
_OF_ALL_ROWS = frozenset({"features.training", "features.validation"})
"""What of a run's identity is known once all features were read."""

STEPS = "training"
"""The task that a training reports once per epoch, with :class:`TrainingData` at its start and an
:class:`EpochLosses` per epoch as results."""


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        n_videos: Training videos with features and actions.
        n_windows: Windows into which they are cut.
        n_empty: Further windows, without actions, which are left out.
        n_valid: Validation videos.
        missing: Names that are annotated for training but have no features.
        valid_missing: Likewise for validation.
    """

    n_videos: int
    n_windows: int
    n_empty: int
    n_valid: int
    missing: list[str]
    valid_missing: list[str]

    def line(self) -> str:
        """All of it in one line."""
        text = (
            f"{counted(self.n_videos, 'training video')} in {counted(self.n_windows, 'window')} "
            f"({self.n_empty} without actions left out), "
            f"{counted(self.n_valid, 'validation video')}."
        )
        for missing, role in ((self.missing, "training"), (self.valid_missing, "validation")):
            if missing:
                shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
                annotated = counted(len(missing), f"annotated {role} video")
                text += f" No features: {annotated}, {shown}."
        return text


@dataclass(frozen=True)
class EpochLosses:
    """One epoch.

    Attributes:
        epoch: Counted from 1.
        epochs: How many there are.
        losses: By name: ``train_loss``, and with validation ``valid_loss``, and their parts.
    """

    epoch: int
    epochs: int
    losses: Mapping[str, float]

    def line(self) -> str:
        """The losses in one line."""
        text = f"epoch {self.epoch}/{self.epochs}: loss {self.losses['train_loss']:.4f}"
        if "valid_loss" in self.losses:
            text += f", validation {self.losses['valid_loss']:.4f}"
        return text


@dataclass(frozen=True)
class TrainReport:
    """What a training run left.

    Attributes:
        run: Its folder.
        best_epoch: Counted from 1: of the lowest validation loss, or the last without validation.
        history: One entry per epoch, with losses.
        n_videos: Training videos.
        missing: Names that are annotated for training but have no features.
        valid_missing: Likewise for validation.
    """

    run: Path
    best_epoch: int
    history: list[dict[str, float]]
    n_videos: int
    missing: list[str]
    valid_missing: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "run": str(self.run),
            "best_epoch": self.best_epoch,
            "history": self.history,
            "n_videos": self.n_videos,
            "missing": self.missing,
            "valid_missing": self.valid_missing,
        }


def train(
    features: Paths,
    annotations: Annotations,
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    valid: Annotations | None = None,
    sampling: Sampling | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> TrainReport:
    """Train a boundary-matching network, and a class head if wanted, on stored features.

    A run that was stopped resumes after its last complete epoch, and then ends with the same
    weights as an undisturbed one on the same machine. A finished run does nothing.

    Args:
        features: One or more feature stores.
        annotations: Of the training videos; those without features are left out and reported.
        out: The run's folder: ``best.pth``, ``last.pth``, ``config.json``, ``log.json``.
        config: The settings.
        valid: Annotations of validation videos, which choose the epoch; None takes the last.
        sampling: Where rows lie in time, for stores that do not say so.
        overwrite: Start over instead of resuming.
        reporter: Receives the progress of the run.

    Raises:
        TrainingError: If ``out`` holds a run with other settings or data, or files of another
            program, before anything is written; or if the loss is not finite.
        LocalizationError: If features and annotations do not fit together.
        StoreError: If a store cannot be read.
    """
    config = config or TrainConfig()
    reporter = reporter or Reporter()
    out = Path(out)
    folder = RunDir(out, CONFIG, FILES)
    device = resolve_device(config.device)
    with open_features(features, sampling=sampling) as opened:
        videos, missing = annotated_videos(opened, annotations)
        valid_videos: list[LocalizationVideo] = []
        valid_missing: list[str] = []
        if valid is not None:
            valid_videos, valid_missing = annotated_videos(opened, valid)
        identity = _identity(config, opened, videos, valid_videos)
        state = None
        if not overwrite:
            # Before all features are read, which may take minutes.
            _require_own(folder, identity, ignored=_OF_ALL_ROWS)
            state = _State.load(out / checkpoints.LAST, device)
        windows = TrainingWindows(videos, config)
        valid_windows = TrainingWindows(valid_videos, config) if valid_videos else None
        identity["features"] |= {
            "training": windows.digest,
            "validation": "" if valid_windows is None else valid_windows.digest,
        }
        if not overwrite:
            _require_own(folder, identity)
        sizes = len(videos), len(windows), windows.n_empty, len(valid_videos)
        reporter.result(TrainingData(*sizes, missing, valid_missing))
        if state is None:
            state = _fresh(config, opened, windows, videos, annotations, device, reporter)
        else:
            reporter.message(f"Resuming after epoch {state.epoch}.")
    origins = (AnnotationOrigin.of(given) for given in (annotations, valid) if given is not None)
    state.localizer.origins = tuple({origin: None for origin in origins if origin is not None})
    with folder.opened(overwrite=overwrite), cuda_arithmetic(tf32=False):
        if not folder.about_path.exists():
            with replacing(folder.about_path) as aside:
                aside.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        began, first = time.monotonic(), state.epoch

        def left(epochs: float) -> str:
            speed_s = (time.monotonic() - began) / (epochs - first)
            return f"{clock(speed_s * (config.epochs - epochs))} left"

        while state.epoch < config.epochs:
            losses = _train_epoch(state, windows, device, reporter, left)
            if valid_windows is not None:
                losses.update(_validate(state.localizer.model, valid_windows, device))
            state.finish_epoch(losses, out)
            reporter.result(EpochLosses(state.epoch, config.epochs, losses))
    return TrainReport(out, state.best_epoch, state.history, len(videos), missing, valid_missing)


class _State:
    """All that changes while training."""

    def __init__(self, localizer: Localizer) -> None:
        config = localizer.config
        self.localizer = localizer
        self.optimizer = torch.optim.Adam(
            localizer.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def finish_epoch(self, losses: dict[str, float], out: Path) -> None:
        """Note an epoch and write the checkpoints."""
        self.history.append(losses)
        best = self.history[self.best_epoch - 1].get("valid_loss") if self.best_epoch else None
        if best is None or losses["valid_loss"] < best:
            self.best_epoch = self.epoch
            checkpoints.save(out / checkpoints.BEST, localizer_state(self.localizer))
        values = {
            **localizer_state(self.localizer),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
        }
        # After best.pth: a run killed in between does this epoch again and gets the same.
        checkpoints.save(out / checkpoints.LAST, values)
        with replacing(out / LOG) as aside:
            aside.write_text(json.dumps(self.history, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, device: torch.device) -> _State | None:
        if not path.exists():
            return None
        try:
            values = checkpoints.load(path, device)
            state = cls(checkpoints.localizer_from_state(values, device))
            state.optimizer.load_state_dict(values["optimizer"])
            state.history, state.best_epoch = values["history"], values["best_epoch"]
        except (CheckpointError, *MALFORMED) as error:
            raise TrainingError(
                f"The run cannot resume from {path}: {error}",
                remedy="Start over with --overwrite, or give another --out.",
            ) from error
        return state


def _fresh(
    config: TrainConfig,
    features: StoreSet,
    windows: TrainingWindows,
    videos: list[LocalizationVideo],
    annotations: Annotations,
    device: torch.device,
    reporter: Reporter,
) -> _State:
    head = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Bmn(features.dim, config.model)
        if config.classes.source != "none":
            head = ClassHead(features.dim, annotations.labels(), config.classes)
    if config.standardize:
        model.standardize(*windows.statistics())
    if head is not None:
        head.to(device)
        with cuda_arithmetic(tf32=False):
            fit = train_class_head(head, class_samples(videos, head), config.seed)
        right = f"{fit['accuracy']:.1%} of {counted(fit['n_samples'], 'training sample')}"
        reporter.message(f"class head: {right}.")
    made = features.metadata
    localizer = Localizer(
        model.to(device), config, head, dict(made.settings), made.weights, made.weights_path
    )
    return _State(localizer)


def _train_epoch(
    state: _State,
    windows: TrainingWindows,
    device: torch.device,
    reporter: Reporter,
    left: Callable[[float], str],
) -> dict[str, float]:
    config, model = state.localizer.config, state.localizer.model
    epoch = state.epoch + 1
    rate = config.learning_rate * (0.1 if epoch > config.drop_epoch else 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(windows), generator=generator).tolist()
    model.train()
    sums = torch.zeros(4, device=device)
    done = 0
    reporter.start(STEPS, len(order))
    for batch, targets in windows.batches(order, device):
        loss = bmn_loss(model(batch), targets, config.loss)
        state.optimizer.zero_grad()
        loss.total.backward()
        state.optimizer.step()
        sums += torch.stack([part.detach() for part in loss]) * len(batch)
        done += len(batch)
        so_far = left(state.epoch + done / len(order))
        reporter.advance(STEPS, done, f"epoch {epoch}/{config.epochs}, {so_far}")
    return _means(sums, len(order), "train", epoch)


@torch.inference_mode()
def _validate(model: Bmn, windows: TrainingWindows, device: torch.device) -> dict[str, float]:
    model.eval()
    sums = torch.zeros(4, device=device)
    for batch, targets in windows.batches(range(len(windows)), device):
        loss = bmn_loss(model(batch), targets, windows.config.loss)
        sums += torch.stack(list(loss)) * len(batch)
    return _means(sums, len(windows), "valid", None)


def _means(sums: torch.Tensor, count: int, prefix: str, epoch: int | None) -> dict[str, float]:
    names = ("loss", "boundary", "classification", "regression")
    values = (sums / count).tolist()
    if not all(abs(value) < float("inf") for value in values):
        raise TrainingError(
            f"The {prefix} loss is {values[0]}" + (f" in epoch {epoch}." if epoch else "."),
            remedy="Check the features for infinities, or lower the learning rate.",
        )
    return {f"{prefix}_{name}": value for name, value in zip(names, values, strict=True)}


def _identity(
    config: TrainConfig,
    features: StoreSet,
    videos: list[LocalizationVideo],
    valid_videos: list[LocalizationVideo],
) -> dict[str, Any]:
    """What two runs must have in common to be one, but for :data:`_OF_ALL_ROWS`."""
    digests = {}
    for name, chosen in (("training", videos), ("validation", valid_videos)):
        described = [
            (v.key, v.features.n_rows, v.duration_s, [segment[:3] for segment in v.segments])
            for v in chosen
        ]
        digests[name] = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    settings = json.dumps(features.metadata.settings, sort_keys=True)
    return {
        "config": replace(config, device="auto").to_dict(),
        "features": {
            "width": features.dim,
            "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
        },
        "videos": digests,
        "precision": PRECISION,
    }


def _require_own(folder: RunDir, identity: dict[str, Any], ignored: Collection[str] = ()) -> None:
    folder.require_own(
        lambda path: _read_identity(path, identity),
        json.loads(json.dumps(identity)),
        ignored=ignored,
    )


def _read_identity(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    try:
        # Runs of earlier versions did not state their precision, which was this.
        identity = {"precision": PRECISION, **parse_json(path.read_text(encoding="utf-8"))}
    except MALFORMED as error:
        raise TrainingError(
            f"{path} cannot be read ({error}).",
            remedy="Give --overwrite or another --out.",
            path=path,
        ) from error
    if set(identity) != set(like):
        raise TrainingError(f"{path} does not belong to a localization run.", path=path)
    return identity
