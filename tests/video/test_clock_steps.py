"""Clocks that step: every tick shows ffmpeg's picture, and what was corrected is stated."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.videos import make_video, read_number
from tests.video.pools import usable
from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import open_source, read_clip, sampled_frames
from tspcli.video.durations import header_duration_ms

EVERY_TICK = Sampling(frame_rate=Fraction(30), clip_length=1, stride=1)
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed"
)
Part = dict[str, Any]


def sound(start_s: float = 0, codec: str = "mp2") -> Part:
    return {"audio": True, "audio_codec": codec, "audio_start_s": start_s, "audio_s": 1.3}


def join(path: Path, parts: list[Part], **common: Any) -> Path:
    """Videos of 30 frames one after another, as `cat` joins them."""
    codec = "libx264" if path.suffix in (".ts", ".m2ts") else "mpeg2video"
    whole = b""
    for number, part in enumerate(parts):
        piece = path.with_name(f"part-{number}{path.suffix}")
        make_video(piece, **{"fps": 25, "n_frames": 30, "codec": codec, **common, **part})
        whole += piece.read_bytes()
    path.write_bytes(whole)
    return path


STEPPED: dict[str, list[Part]] = {
    "restarted.ts": [{}, {}, {}],
    "of-24-per-second.ts": [{"fps": 24}] * 3,
    "overlapping.ts": [{"start": 50}, {"start": 60}],
    "an-hour-ahead.ts": [{}, {"start": 90_000}],
    "back-past-the-start.ts": [{"start": 25_000}, {}],
    "with-sound.ts": [sound(codec="aac")] * 3,
    "late-sound.ts": [sound(0.3)] * 3,
    "blu-ray.m2ts": [{"fps": 24, **sound()}] * 2,
    "restarted.mpg": [{}, {}, {}],
    "ntsc.mpg": [{"fps": Fraction(30000, 1001)}] * 2,
    "with-sound.mpg": [sound()] * 3,
    "ahead.mpg": [{}, {"start": 500}, {"start": 1000}],
    "restarted.vob": [{}, {}],
    "with-sound.vob": [sound()] * 3,
    "late-sound.vob": [sound(0.5)] * 2,
    "of-two-rates.vob": [{"fps": 24, **sound()}, sound()],
}


@needs_ffmpeg
@pytest.mark.parametrize("name", STEPPED)
def test_every_tick_shows_the_picture_of_ffmpeg(tmp_path: Path, name: str) -> None:
    path = join(tmp_path / name, STEPPED[name])
    with open_source(path, "pyav") as source:
        frames = sampled_frames(source, EVERY_TICK)
        ours = [
            checksum
            for sampled in frames
            for checksum in [zlib.crc32(sampled.frame.rgb().tobytes())] * len(sampled.ticks)
        ]
        [warning] = source.warnings
    picture = source.info.height * source.info.width * 3
    theirs, steps = _ffmpeg(path)
    assert ours == [
        zlib.crc32(theirs[begin : begin + picture]) for begin in range(0, len(theirs), picture)
    ]
    assert frames.n_frames == 30 * len(STEPPED[name])
    words = warning.replace("(", "").split()
    n_back, n_ahead = sum(step < 0 for step in steps), sum(step > 0 for step in steps)
    assert len(steps) > 0
    assert words[:2] == ["clock:", str(len(steps))]
    assert (int(words[4]), int(words[6])) == (n_back, n_ahead)


def _ffmpeg(path: Path) -> tuple[bytes, list[int]]:
    """The pictures of all ticks, and the steps that were corrected in microseconds.

    Sound is converted, too, because it takes part in corrections.
    """
    pictures = ["-map", "0:v:0", "-vf", "fps=30", "-fps_mode", "passthrough"]
    pictures += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    words = ["ffmpeg", "-v", "debug", "-i", str(path), *pictures, "-map", "0:a?", "-f", "null", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    steps = re.findall(rb"discontinuity .*: (-?\d+), new offset", done.stderr)
    return done.stdout, [int(step) for step in steps]


@pytest.mark.parametrize("suffix", ["ts", "m2ts", "mpg", "vob"])
@pytest.mark.parametrize("n_parts", [2, 3])
def test_nothing_of_joined_parts_is_lost(tmp_path: Path, suffix: str, n_parts: int) -> None:
    path = join(tmp_path / f"joined.{suffix}", [{}] * n_parts, fps=30)
    with open_source(path, "pyav") as source:
        numbers = [
            (read_number(sampled.frame.rgb()), sampled.ticks)
            for sampled in sampled_frames(source, EVERY_TICK)
        ]
    assert numbers == [(tick % 30, (tick,)) for tick in range(30 * n_parts)]


@pytest.mark.parametrize("name", ["restarted.ts", "an-hour-ahead.ts", "restarted.mpg"])
def test_a_clip_anywhere_is_that_of_the_whole_video(tmp_path: Path, name: str) -> None:
    path = join(tmp_path / name, STEPPED[name])
    spec = FrameSpec(ResizeSpec(48, 64))
    sampling = Sampling(clip_length=4, stride=4)
    with open_source(path, "pyav") as source:
        shown = {}
        frames = sampled_frames(source, sampling)
        for sampled in frames:
            shown.update(dict.fromkeys(sampled.ticks, sampled.frame.scaled(spec).copy()))
        for clip in range(sampling.n_clips(frames.n_ticks)):
            ticks = sampling.clip_ticks(clip)
            read = read_clip(source, Fraction(ticks[0], 30), sampling, spec)
            assert (read == np.stack([shown[tick] for tick in ticks])).all()


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
@pytest.mark.parametrize("name", ["restarted.ts", "an-hour-ahead.ts", "with-sound.mpg"])
def test_other_decoders_refuse_it(tmp_path: Path, name: str, decoder: str) -> None:
    path = join(tmp_path / name, STEPPED[name])
    with pytest.raises(VideoError) as caught:
        open_source(path, usable(decoder))
    assert caught.value.reason == "unsupported"
    assert "clock" in caught.value.detail


@pytest.mark.parametrize("name", STEPPED)
def test_its_duration_for_planning_is_the_corrected_one(tmp_path: Path, name: str) -> None:
    path = join(tmp_path / name, STEPPED[name])
    with open_source(path, "pyav") as source:
        frames = sampled_frames(source, EVERY_TICK)
        list(frames)
    lasts_s = float(frames.end_s - frames.start_s)
    assert header_duration_ms(str(path)) == pytest.approx(1000 * lasts_s, abs=150)


@pytest.mark.parametrize("suffix", ["ts", "mpg", "vob"])
def test_a_gap_is_no_step(tmp_path: Path, suffix: str) -> None:
    """ffmpeg, too, shows the last picture for as long as nothing was recorded."""
    path = join(tmp_path / f"gap.{suffix}", [{}, {"start": 155}])
    with open_source(path, "pyav") as source:
        frames = sampled_frames(source, EVERY_TICK)
        list(frames)
        assert source.warnings == []
    assert frames.end_s - frames.start_s > 6
