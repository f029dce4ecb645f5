"""A run that dies at any instant loses nothing and, started again, ends as an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.builders.videos import make_video
from tspcli.store import open_store

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, n_frames in enumerate([90, 40, 120, 12]):
        make_video(folder / f"v{number}.mp4", fps=30, n_frames=n_frames, width=96, height=64)
    return folder


def drive(*arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.extraction.kill_driver", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def assert_same_store(path: Path, expected: Path, *, ignoring_decoder: bool = False) -> None:
    """Equal rows and attributes; a video whose worker is killed twice may have another decoder."""
    ignored = {"decoder", "checksum"} if ignoring_decoder else set()
    with open_store(path) as store, open_store(expected) as undisturbed:
        assert list(store) == list(undisturbed)
        for key, video in store.items():
            np.testing.assert_array_equal(video.rows, undisturbed[key].rows)
            assert kept(video.attrs, ignored) == kept(undisturbed[key].attrs, ignored)
            assert video.verify() is True


def kept(attributes: dict[str, object], ignored: set[str]) -> dict[str, object]:
    return {name: value for name, value in attributes.items() if name not in ignored}


@pytest.mark.parametrize("target", ["main", "worker", "group"])
def test_sigkill_at_random_instants(videos: Path, tmp_path: Path, target: str) -> None:
    check_kills(videos, tmp_path, 6, target)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", ["main", "worker", "group"])
def test_sigkill_at_a_hundred_random_instants(videos: Path, tmp_path: Path, target: str) -> None:
    print(target, check_kills(videos, tmp_path, 100, target))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", ["main", "worker", "group"])
def test_sigkill_of_a_run_on_two_devices(
    videos: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``worker`` is any child: a device's process, or one that decodes."""
    monkeypatch.setenv("TSPCLI_TEST_DEVICE", "cpu,cpu")
    print(target, check_kills(videos, tmp_path, 30, target))


def check_kills(videos: Path, folder: Path, kills: int, target: str) -> dict[str, float]:
    result = drive("random", videos, folder, kills, 7, target)
    assert result["kills"] == kills
    finished = sorted(folder.glob("run*.h5"))
    assert finished
    for store in finished:
        assert_same_store(store, folder / "undisturbed.h5", ignoring_decoder=target == "worker")
    leftovers = [path.name for path in folder.iterdir() if path.suffix != ".h5"]
    assert all(name.endswith(".report.json") for name in leftovers), leftovers
    return {**result, "stores": len(finished), "lost": 0}


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_death_at_every_step_that_makes_things_durable(
    videos: Path, tmp_path: Path, call: str
) -> None:
    drive("random", videos, tmp_path, 0, 0)
    result = drive(call, videos, tmp_path, 60)
    assert result["deaths"] >= 1
    assert_same_store(tmp_path / "out.h5", tmp_path / "undisturbed.h5")
