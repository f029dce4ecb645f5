"""A run that is told to stop: it finishes what is in flight, commits, says so, and is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.builders.videos import make_video
from tspcli.core.stop import HARD_LIMIT_S
from tspcli.store import open_store

pytestmark = pytest.mark.faults
_LIMIT_S = 10.0
"""From the moment at which the run heard of the signal until it leaves, by its own clock."""
_SEEN_LIMIT_S = 18.0
"""The same as seen from here, with what a busy machine takes to tell a process and to end it."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    first = make_video(folder / "v0.mp4", n_frames=90, width=64, height=48)
    for number in range(1, 30):
        (folder / f"v{number}.mp4").write_bytes(first.read_bytes())
    return folder


def start(videos: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """``tsp extract`` with an encoder that takes a while, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.extraction.slow_extract", str(videos), str(out), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_parts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.with_name(out.name + ".parts").glob("*.part"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_times(said: str, seen_s: float) -> float:
    """Whether the run left in time; after how long, by its own clock."""
    own = re.search(r"left after ([\d.]+) s", said)
    assert own is not None, said
    print(f"left after {own[1]} s by its own clock, {seen_s:.2f} s by ours")
    assert float(own[1]) < _LIMIT_S and seen_s < _SEEN_LIMIT_S
    return float(own[1])


def children_of(group: int) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(place.name))
    return found


@pytest.mark.parametrize(
    ("number", "whole_group", "options"),
    [
        (signal.SIGTERM, False, []),
        (signal.SIGTERM, True, []),
        (signal.SIGINT, False, []),
        (signal.SIGINT, True, []),
        (signal.SIGTERM, False, ["--two"]),
        pytest.param(signal.SIGINT, True, ["--two"], marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_signal_ends_a_run_in_good_order(
    videos: Path, tmp_path: Path, number: signal.Signals, whole_group: bool, options: list[str]
) -> None:
    out = tmp_path / "f.h5"
    process = start(videos, out, *options)
    wait_for_parts(out, 2, process)
    sent = time.monotonic()
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    check_times(said, time.monotonic() - sent)
    assert process.returncode == 128 + number, said
    assert "Stopping" in said and "Finished videos are kept" in said
    assert "Traceback" not in said and "failed" not in said
    assert children_of(process.pid) == []
    parts = out.with_name("f.h5.parts")
    n_kept = len(list(parts.glob("*.part")))
    assert 2 <= n_kept < 30 and not out.exists()
    assert not list(parts.glob(".*")) and not out.with_name("f.h5.lock").exists()

    again = start(videos, out, "--fast")
    assert again.communicate(timeout=300)[0] is None and again.returncode == 0
    report = json.loads(out.with_name("f.h5.report.json").read_text())
    assert report["counts"]["kept"] == n_kept
    with open_store(out) as store:
        assert len(store) == 30
        for video in store.values():
            assert video.verify()
            np.testing.assert_array_equal(video.rows, store["v0"].rows)


def test_an_encoder_that_does_not_come_back_is_left(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    process = start(videos, out, "--stuck")
    wait_for(out.with_suffix(".hangs"), process)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert check_times(said, time.monotonic() - sent) > HARD_LIMIT_S - 0.5, "it never hung"
    assert process.returncode == 143
    assert "Finished videos are kept" in said
    deadline = time.monotonic() + 10
    while children_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children_of(process.pid) == []


@pytest.mark.parametrize("options", [[], pytest.param(["--two"], marks=pytest.mark.slow)], ids=str)
def test_a_second_signal_ends_it_at_once(videos: Path, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "f.h5"
    process = start(videos, out, *options)
    wait_for_parts(out, 1, process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("Stopping" in line for line in process.stderr), "the first was not noticed"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert children_of(process.pid) == []


def test_a_second_run_on_one_output_is_refused_by_name(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    first = start(videos, out, "--stuck")
    wait_for(out.with_suffix(".hangs"), first)
    second = start(videos, out, "--fast")
    _, said = second.communicate(timeout=300)
    assert first.poll() is None
    first.kill()
    first.communicate(timeout=60)
    assert second.returncode == 1
    assert f"process {first.pid} on {socket.gethostname()}" in said
