"""A run that is told to stop: it finishes what is in flight, commits, says so, and is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.builders.forked import Forked
from tests.builders.videos import make_video
from tests.builders.waiting import wait_until
from tests.extraction import slow_extract
from tspcli.cli.main import main
from tspcli.core.stop import HARD_LIMIT_S
from tspcli.store import open_store

pytestmark = pytest.mark.faults
Start = Callable[..., Forked]
N_VIDEOS = 14
_LIMIT_S = 10.0
"""From the moment at which the run heard of the signal until it leaves, by its own clock."""
_SEEN_LIMIT_S = 18.0
"""The same as seen from here, with what a busy machine takes to tell a process and to end it."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    first = make_video(folder / "v0.mp4", n_frames=70, width=64, height=48)
    for number in range(1, N_VIDEOS):
        (folder / f"v{number}.mp4").write_bytes(first.read_bytes())
    return folder


@pytest.fixture
def start(videos: Path, tmp_path: Path) -> Iterator[Start]:
    """``tsp extract`` with an encoder that takes a while, in a process group of its own."""
    started: list[Forked] = []

    def begin(*options: str) -> Forked:
        words = (str(videos), str(tmp_path / "f.h5"), *options)
        started.append(Forked(slow_extract.run, *words, log=tmp_path / f"said{len(started)}"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def wait_for_parts(out: Path, count: int, process: Forked) -> None:
    parts = out.with_name(out.name + ".parts")
    wait_until(
        lambda: len(list(parts.glob("*.part"))) >= count,
        within_s=120,
        unless=process.ended_early,
    )


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
    videos: Path,
    tmp_path: Path,
    start: Start,
    number: signal.Signals,
    whole_group: bool,
    options: list[str],
) -> None:
    out = tmp_path / "f.h5"
    process = start(*options)
    wait_for_parts(out, 2, process)
    sent = time.monotonic()
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    code = process.wait(60)
    seen_s, said = time.monotonic() - sent, process.said()
    check_times(said, seen_s)
    assert code == 128 + number, said
    assert "Stopping" in said and "Finished videos are kept" in said
    assert "the same command resumes" in said
    assert "Traceback" not in said and "failed" not in said
    assert children_of(process.pid) == []
    parts = out.with_name("f.h5.parts")
    n_kept = len(list(parts.glob("*.part")))
    assert 2 <= n_kept < N_VIDEOS and not out.exists()
    assert not list(parts.glob(".*")) and not out.with_name("f.h5.lock").exists()

    with pytest.raises(SystemExit) as ended:
        main([*slow_extract.words(str(videos), str(out)), "--device", "cpu"])
    assert ended.value.code == 0
    report = json.loads(out.with_name("f.h5.report.json").read_text())
    assert report["counts"]["kept"] == n_kept
    with open_store(out) as store:
        assert len(store) == N_VIDEOS
        for video in store.values():
            assert video.verify()
            np.testing.assert_array_equal(video.rows, store["v0"].rows)


def test_an_encoder_that_does_not_come_back_is_left(tmp_path: Path, start: Start) -> None:
    process = start("--stuck")
    wait_until((tmp_path / "f.hangs").exists, within_s=120, unless=process.ended_early)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    seen_s, said = time.monotonic() - sent, process.said()
    assert check_times(said, seen_s) > HARD_LIMIT_S - 0.5, "it never hung"
    assert code == 143
    assert "Finished videos are kept" in said
    wait_until(lambda: not children_of(process.pid), within_s=10)


@pytest.mark.parametrize("options", [[], pytest.param(["--two"], marks=pytest.mark.slow)], ids=str)
def test_a_second_signal_ends_it_at_once(tmp_path: Path, start: Start, options: list[str]) -> None:
    process = start(*options)
    wait_for_parts(tmp_path / "f.h5", 1, process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in process.said(), unless=process.ended_early)
    process.send_signal(signal.SIGINT)
    code, said = process.wait(60), process.said()
    assert code == 130 and "Traceback" not in said, said
    assert children_of(process.pid) == []


def test_a_second_run_on_one_output_is_refused_by_name(tmp_path: Path, start: Start) -> None:
    first = start("--stuck")
    wait_until((tmp_path / "f.hangs").exists, within_s=120, unless=first.ended_early)
    second = start("--fast")
    assert second.wait(300) == 1
    assert first.poll() is None
    assert f"process {first.pid} on {socket.gethostname()}" in second.said()
