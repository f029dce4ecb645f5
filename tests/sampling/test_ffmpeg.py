"""The timeline against the program whose re-encode it stands for.

The official recipe shows ``ffmpeg -filter:v fps=fps=30``, then every second frame. Frames carry
their numbers in their pixels, so which one ffmpeg shows at which tick can be read.
"""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.videos import make_video, read_number
from tspcli.sampling import Sampling
from tspcli.video import open_source, sampled_frames

RATES: list[Fraction | int | float] = [
    10,
    12.5,
    19.62,
    Fraction(24000, 1001),
    23.976,
    24,
    24.83,
    25,
    Fraction(30000, 1001),
    29.97,
    29.998,
    30,
    50,
    Fraction(60000, 1001),
    59.94,
    60,
    120,
]
rng = np.random.default_rng(3)
VARIABLE: dict[str, dict[str, Any]] = {
    "jitter": {
        "times": [33 * k + int(rng.integers(-12, 13)) + 12 for k in range(90)],
        "time_base": Fraction(1, 1000),
    },
    "pauses": {
        "times": np.cumsum(rng.choice([1, 2, 3, 45, 90, 200], 90)).tolist(),
        "time_base": Fraction(1, 90),
    },
    "halves": {"times": list(range(0, 150, 3)), "time_base": Fraction(1, 60)},
    "bursts": {
        "times": np.cumsum(rng.choice([1, 1, 1, 30], 90)).tolist(),
        "time_base": Fraction(1, 240),
    },
}
OFFSETS: dict[str, dict[str, Any]] = {
    "ntsc late": {"fps": Fraction(30000, 1001), "start": 2, "n_frames": 90},
    "25 late": {"fps": 25, "start": 61, "n_frames": 90},
    "odd base": {
        "times": [round(k * 10007 / 29.998) for k in range(90)],
        "time_base": Fraction(1, 10007),
        "start": 3333,
    },
}
CASES: dict[str, dict[str, Any]] = (
    {f"{rate} fps": {"fps": rate, "n_frames": int(3 * rate)} for rate in RATES}
    | VARIABLE
    | OFFSETS
    | {f"{name}, sound first": {**kind, "audio": True} for name, kind in OFFSETS.items()}
)


def ours(path: Path) -> list[int]:
    """The number of the frame that each tick shows."""
    every_tick = Sampling(frame_rate=Fraction(30), clip_length=1, stride=1)
    with open_source(path, "pyav") as source:
        frames = sampled_frames(source, every_tick)
        shown = [(f.ticks, read_number(f.frame.rgb())) for f in frames]
    numbers = [number for ticks, number in shown for _ in ticks]
    assert len(numbers) == frames.n_ticks
    return numbers


def theirs(program: str, path: Path) -> list[int]:
    """What ffmpeg shows, frame by frame."""
    command = [program, "-v", "error", "-i", str(path), "-filter:v", "fps=fps=30"]
    command += ["-vsync", "0", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    return [read_number(rgb) for rgb in np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", CASES)
def test_every_tick_shows_the_frame_that_ffmpeg_shows(
    ffmpeg: str, tmp_path: Path, name: str, suffix: str
) -> None:
    path = make_video(tmp_path / f"v{suffix}", **CASES[name])
    mine, other = ours(path), theirs(ffmpeg, path)
    # How many ticks follow the last frame differs between ffmpeg's versions.
    assert abs(len(mine) - len(other)) <= 2 or name in ("pauses", "bursts")
    n_sure = min(len(mine), len(other)) - 2
    assert n_sure > 40
    assert mine[:n_sure] == other[:n_sure]


@pytest.mark.parametrize("name", ["h264.avi", "mpeg4.avi", "h264.ts", "mpeg2.mpg"])
def test_containers_with_careless_times_too(ffmpeg: str, tmp_path: Path, name: str) -> None:
    codec = {"mpeg4.avi": "mpeg4", "mpeg2.mpg": "mpeg2video"}.get(name, "libx264")
    path = make_video(tmp_path / name, fps=25, n_frames=75, codec=codec)
    mine, other = ours(path), theirs(ffmpeg, path)
    n_sure = min(len(mine), len(other)) - 2
    assert n_sure > 60
    assert mine[:n_sure] == other[:n_sure]


def test_real_videos_too(ffmpeg: str, shared_data: Path) -> None:
    for name in ("v_GGSY1Qvo990.mp4", "women_long_jump.mp4"):
        path = shared_data / name
        command = [ffmpeg, "-v", "error", "-i", str(path), "-filter:v", "fps=fps=30", "-t", "8"]
        command += ["-vsync", "0", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
        raw = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout
        with open_source(path, "pyav") as source:
            shape = (-1, source.info.height, source.info.width, 3)
            other = np.frombuffer(raw, np.uint8).reshape(shape)[::2]
            n_compared = 0
            for sampled in sampled_frames(source, Sampling()):
                for tick in sampled.ticks:
                    if tick // 2 < len(other) - 2:
                        assert (sampled.frame.rgb() == other[tick // 2]).all()
                        n_compared += 1
        assert n_compared == len(other) - 2 > 100


def test_constant_30_fps_is_index_for_index_the_official_choice(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", fps=30, n_frames=121)
    assert ours(path) == list(range(121))
    with open_source(path, "pyav") as source:
        frames = sampled_frames(source, Sampling())
        numbers = [read_number(sampled.frame.rgb()) for sampled in frames]
    assert numbers == list(range(0, 121, 2))
    assert frames.n_ticks == 121
