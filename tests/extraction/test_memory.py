"""Peak memory does not depend on how long a video is, however slow the encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.videos import make_video, repeat_video


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_three_hours_take_as_much_memory_as_ten_seconds(tmp_path: Path) -> None:
    short, long = tmp_path / "short.mp4", tmp_path / "long.mp4"
    make_video(short, fps=30, n_frames=300, width=160, height=120)
    repeat_video(short, long, 3 * 360)
    peaks = []
    for video in (short, long):
        done = subprocess.run(
            [sys.executable, "-m", "tests.extraction.memory_driver", str(video),
             str(tmp_path / f"{video.stem}.h5"), "auto", "0.1", "120"],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["clips"] >= 120
        peaks.append(result["peak_mb"])
    assert abs(peaks[1] - peaks[0]) < 100, peaks
