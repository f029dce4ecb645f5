"""Rows of published feature recipes: which frames they show and when they are.

The vectors in ``recipe_vectors.json`` were compared with the original programs, as each one says.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.shown import shown_frames
from tspcli.sampling import Sampling
from tspcli.sampling.windows import rate_or_times, row_times_s, ticks_of_clips

VECTORS = json.loads((Path(__file__).parent / "recipe_vectors.json").read_text())["vectors"]


def sampling_of(settings: dict[str, Any], n_frames: int) -> Sampling:
    """The sampling that a vector's settings mean."""
    clock, count = settings["clock"], settings["count"]
    rate = Fraction(0) if clock == "native" else Fraction(clock["fps_grid"])
    within = settings.get("clamp_within_row")
    offsets = [o if within is None else min(o, within) for o in settings["offsets"]]
    complete = count != "cover"
    return Sampling(
        rate,
        len(offsets),
        # Segments divide the video, so that their stride follows from its length.
        n_frames // settings["segments"] if count == "segments" else settings["hop"],
        rate,
        offsets=tuple(offsets),
        phase=settings["phase"],
        tail={"cover": "repeat", "flush": "flush"}.get(count, "drop"),
        need=settings["need"] if complete else 0,
        extent=tuple(settings["cover"]),
    )


def video_of(source: dict[str, Any]) -> tuple[list[Fraction], Fraction]:
    """Times of the frames and of the end."""
    if "times_s" in source:
        return [Fraction(time) for time in source["times_s"]], Fraction(source["end_s"])
    rate = Fraction(source["rate"])
    return [i / rate for i in range(source["frames"])], source["frames"] / rate


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_rows_are_those_of_the_recipe(vector: dict[str, Any]) -> None:
    times_s, end_s = video_of(vector["source"])
    if (
        isinstance(vector["settings"]["clock"], dict)
        and "cells_per_s" in vector["settings"]["clock"]
    ):
        pytest.skip("cells that divide a video of known length are no sampling of ours yet")
    sampling = sampling_of(vector["settings"], len(times_s))
    assert Sampling.from_dict(json.loads(json.dumps(sampling.to_dict()))) == sampling
    if sampling.is_native:
        frames = list(range(len(times_s)))
        seconds = np.array([float(time) for time in [*times_s, end_s]])
        rate, frame_times_s = rate_or_times(seconds, None)
        timed = sampling.at_rate(rate)
    else:
        frames = shown_frames(times_s, end_s, sampling.grid_rate)
        timed, frame_times_s = sampling, None
    n_ticks, expected = len(frames), vector["expected"]
    n_rows = sampling.n_clips(n_ticks)
    assert n_rows == expected["rows"]
    starts, ends = row_times_s(timed, n_rows, n_ticks, frame_times_s)
    for clip in expected["clips"]:
        row = clip["row"]
        [ticks] = ticks_of_clips(sampling, row, 1, n_ticks).tolist()
        assert ticks == clip["positions"] == list(sampling.clip_ticks(row, n_ticks))
        assert [frames[tick] for tick in ticks] == clip["source_frames"]
        assert starts[row] == pytest.approx(float(Fraction(clip["start_s"])), abs=1e-9)
        assert ends[row] == pytest.approx(float(Fraction(clip["end_s"])), abs=1e-9)
        if frame_times_s is None and sampling.base(row, n_ticks) == sampling.base(row):
            exact = timed.clip_start_s(row), timed.clip_center_s(row), timed.clip_end_s(row)
            assert exact == tuple(Fraction(clip[f"{at}_s"]) for at in ("start", "centre", "end"))
