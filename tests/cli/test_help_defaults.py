"""What help pages call a default is the default, where the command itself leaves it to settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from tspcli.cli import extract, gvf, localize
from tspcli.encoders.loading import describe_weights
from tspcli.extraction import ExtractConfig, extraction_run
from tspcli.extraction.extraction_run import GVF_WEIGHTS
from tspcli.localization.localize_config import BmnConfig, PredictConfig, TrainConfig
from tspcli.localization.metrics import MAX_AVERAGE_PROPOSALS
from tspcli.sampling import Sampling

TRAIN, PREDICT, MODEL = TrainConfig(), PredictConfig(), BmnConfig()


def option(command: click.Command, name: str) -> click.Option:
    return next(p for p in command.params if isinstance(p, click.Option) and p.name == name)


def told(command: click.Command, name: str) -> str:
    found = re.search(r"\[default: (.+?)\]", option(command, name).help or "")
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize(
    ("command", "name", "default"),
    [
        *(
            (localize.train_command, name, getattr(TRAIN, name))
            for name in ("epochs", "drop_epoch", "batch_size", "learning_rate", "seed")
        ),
        (localize.train_command, "temporal_scale", MODEL.temporal_scale),
        (localize.train_command, "channels", MODEL.base_channels),
        (localize.train_command, "classes", TRAIN.classes.source),
        *(
            (localize.predict_command, name, getattr(PREDICT, name))
            for name in ("max_proposals", "top_classes", "batch_size")
        ),
        (gvf.command, "weights", GVF_WEIGHTS),
    ],
)
def test_help_tells_the_default(command: click.Command, name: str, default: Any) -> None:
    assert told(command, name) == str(default)


def test_defaults_of_commands_are_those_of_the_library() -> None:
    assert option(localize.evaluate_command, "max_proposals").default == MAX_AVERAGE_PROPOSALS


class Begun(Exception):
    """An extraction would begin now."""


def sampling_of(
    monkeypatch: pytest.MonkeyPatch, command: click.Command, folder: Path, *options: str
) -> Sampling:
    """The sampling with which a command would extract."""

    def begin(*_: object, config: ExtractConfig, **__: object) -> None:
        raise Begun(config.resolve_sampling(describe_weights(config.weights).sampling))

    monkeypatch.setattr(extraction_run, "run_session", begin)
    with pytest.raises(Begun) as begun:
        command.main(
            ["--videos", str(folder), "--out", str(folder / "out.h5"), *options],
            standalone_mode=False,
        )
    sampling: Sampling = begun.value.args[0]
    return sampling


@pytest.mark.parametrize("command", [extract.command, gvf.command])
@pytest.mark.parametrize(
    ("weights", "stride"),
    [(None, 16), ("tiny", 16), ("swin3d_t-kinetics400", 32), ("s3d-kinetics400", 128)],
)
def test_one_rule_for_strides(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: click.Command,
    weights: str | None,
    stride: int,
) -> None:
    chosen = [] if weights is None else ["--weights", weights]
    own = sampling_of(monkeypatch, command, tmp_path, *chosen)
    assert own.stride == own.clip_length == stride
    assert sampling_of(monkeypatch, command, tmp_path, *chosen, "--stride", "4").stride == 4


def test_global_features_are_of_the_official_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 frames at 15 Hz from a grid of 30 Hz, one clip after the other."""
    assert sampling_of(monkeypatch, gvf.command, tmp_path) == Sampling(15, 16, 16, grid_rate=30)
