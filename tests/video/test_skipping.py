"""What nobody looks at is not decoded, and what is decoded does not change by that."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.videos import make_video
from tspcli.sampling import Sampling
from tspcli.video import sampled_frames
from tspcli.video.decoders.pyav_source import PyavSource

KINDS: list[dict[str, Any]] = [
    {},
    {"b_frames": 7, "gop": 60},
    {"b_frames": 3, "options": {"x264-params": "b-pyramid=none"}},
    {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    {"b_frames": 0},
    {"fps": 25},
    {"fps": 60, "n_frames": 120},
    {"start": 40},
    {"times": [0, 3, 4, 5, 9, 10, 11, 13, 20, 21, 22, 30, 31, 33], "time_base": Fraction(1, 60)},
]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_leaving_frames_out_changes_no_pixel(
    tmp_path: Path, kind: dict[str, Any], suffix: str, threads: int
) -> None:
    if suffix in (".ts", ".avi") and "times" in kind:
        return  # These muxers take no variable frame rate.
    path = make_video(tmp_path / f"v{suffix}", **kind)
    for sampling in (Sampling(), Sampling(clip_length=4, stride=9)):
        with (
            PyavSource(str(path), threads) as source,
            PyavSource(str(path), skip_unwanted=False) as plain,
        ):
            ours, theirs = sampled_frames(source, sampling), sampled_frames(plain, sampling)
            for mine, other in zip(ours, theirs, strict=True):
                assert (mine.ticks, mine.pts_s) == (other.ticks, other.pts_s)
                assert (mine.frame.rgb() == other.frame.rgb()).all()
            for name in ("n_ticks", "n_frames", "start_s", "end_s"):
                assert getattr(ours, name) == getattr(theirs, name), name
            assert source.n_decoded <= plain.n_decoded


def test_unneeded_b_frames_are_not_decoded(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", b_frames=3, n_frames=240)
    with PyavSource(str(path)) as source:
        n_sampled = sum(1 for _ in sampled_frames(source, Sampling()))
        assert n_sampled == 120
        assert source.n_decoded < 210


def test_a_gap_between_clips_is_decoded_less(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", b_frames=3, n_frames=240)
    with PyavSource(str(path)) as source:
        frames = list(sampled_frames(source, Sampling(clip_length=4, stride=30)))
    assert [frame.ticks for frame in frames] == [(t,) for t in range(0, 240, 2) if t // 2 % 30 < 4]
    assert source.n_decoded < 210


def test_a_picture_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", b_frames=3)
    with PyavSource(str(path)) as source:
        frames = list(source.frames(wanted=lambda pts_s, next_s: False))
    missing = [frame for frame in frames if not frame.has_picture]
    assert missing
    assert len(frames) == 60
    with pytest.raises(LookupError):
        missing[0].rgb()
    assert np.all(np.diff([float(frame.pts_s) for frame in frames]) > 0)
