"""The settings of an extraction are checked when they are made."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.refusals import refused
from tspcli.errors import UsageError
from tspcli.extraction import ExtractConfig
from tspcli.sampling import Sampling


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("gpus", value) for value in (0, "some", 1.5)),
        *(("workers", value) for value in (0, "2", True)),
        ("batch_size", -1),
        *(("decode_timeout_s", value) for value in (0, -1.0, float("nan"), -float("inf"))),
        ("engine", "spark"),
        ("short_videos", "stretch"),
        ("strict", "yes"),
        ("clip_length", "16"),
        ("key_template", None),
    ],
)
def test_values_that_make_no_sense(option: str, value: Any) -> None:
    with refused(UsageError, option=option) as caught:
        ExtractConfig(**{option: value})
    assert caught.value.data["value"] is value


def test_values_are_taken_as_people_have_them() -> None:
    chosen: dict[str, Any] = {
        "weights": Path("run/best.pth"), "clip_length": np.int64(8), "shard": [1, 4],
        "frame_rate": Fraction(25), "grid_rate": 29.97, "gpus": "all", "window": "3.2s",
        "sampling": Sampling(), "profile": Path("trace.json"), "decode_timeout_s": 5,
    }  # fmt: skip
    config = ExtractConfig(**chosen)
    assert config.weights == "run/best.pth" and config.shard == (1, 4)
    assert type(config.clip_length) is int and type(config.decode_timeout_s) is float
    assert config.frame_rate == 25 and config.sampling == Sampling()


@pytest.mark.parametrize("limit_s", [float("inf"), np.float64("inf"), "inf"])
def test_a_decoder_may_take_for_ever(limit_s: Any) -> None:
    if isinstance(limit_s, str):
        with refused(UsageError, option="decode_timeout_s", value=limit_s):
            ExtractConfig(decode_timeout_s=limit_s)
        return
    assert ExtractConfig(decode_timeout_s=limit_s).decode_timeout_s == float("inf")
