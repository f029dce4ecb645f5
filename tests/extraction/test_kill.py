"""A run that dies at any instant loses nothing and, started again, ends as an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.videos import make_video
from tspcli.features import open_store


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, n_frames in enumerate([90, 40, 120, 12, 70, 55]):
        make_video(folder / f"v{number}.mp4", fps=30, n_frames=n_frames, width=96, height=64)
    return folder


def drive(*arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.extraction.kill_driver", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def assert_same_store(path: Path, expected: Path) -> None:
    with open_store(path) as store, open_store(expected) as undisturbed:
        assert list(store) == list(undisturbed)
        for key, video in store.items():
            np.testing.assert_array_equal(video.rows, undisturbed[key].rows)
            assert video.attrs == undisturbed[key].attrs
            assert video.verify() is True


def test_sigkill_at_thirty_random_instants(videos: Path, tmp_path: Path) -> None:
    result = drive("random", videos, tmp_path, 30, 7)
    assert result["kills"] == 30
    for run in range(1, int(result["runs"]) + 1):
        assert_same_store(tmp_path / f"run{run}.h5", tmp_path / "undisturbed.h5")
    leftovers = [path.name for path in tmp_path.iterdir() if path.suffix != ".h5"]
    assert all(name.endswith(".report.json") for name in leftovers), leftovers


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_death_at_every_step_that_makes_things_durable(
    videos: Path, tmp_path: Path, call: str
) -> None:
    drive("random", videos, tmp_path, 0, 0)
    result = drive(call, videos, tmp_path, 60)
    assert result["deaths"] >= 1
    assert_same_store(tmp_path / "out.h5", tmp_path / "undisturbed.h5")
