"""What help pages call a default is the default, where the command itself leaves it to settings."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest

from tspcli.cli import gvf, localize
from tspcli.extraction.extraction_run import GVF_STRIDE, GVF_WEIGHTS
from tspcli.localization.localize_config import BmnConfig, PredictConfig, TrainConfig
from tspcli.localization.metrics import MAX_AVERAGE_PROPOSALS

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
    assert option(gvf.command, "stride").default == GVF_STRIDE
    assert option(localize.evaluate_command, "max_proposals").default == MAX_AVERAGE_PROPOSALS
