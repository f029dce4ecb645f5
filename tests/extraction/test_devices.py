"""Several devices in one run: the rows of one device's run, whoever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.extraction.ray_driver import OPTIONS as ONE
from tests.extraction.same import assert_same_store, leftovers
from tspcli.core.progress import Reporter
from tspcli.encoders import load_encoder
from tspcli.errors import StoreError, TspError, UsageError
from tspcli.extraction import ExtractConfig, RunFigures, VideoResult, extract
from tspcli.extraction.extraction_run import compute_gvf
from tspcli.extraction.supervisor import Device, DevicesRunner
from tspcli.store.gvf import read_gvf
from tspcli.store.parts import read_part

TWO = replace(ONE, device="cpu,cpu")


class Pids(Reporter):
    """Does something once, when some videos have ended."""

    def __init__(self, after: int, runner_pids: list[int]) -> None:
        self.after = after
        self.pids = runner_pids
        self.seen: list[VideoResult] = []
        self.messages: list[str] = []

    def result(self, result: VideoResult) -> None:
        self.seen.append(result)
        if len(self.seen) == self.after:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def device_pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes of the devices that were started, in their order."""
    pids: list[int] = []
    real = Device.ready

    def ready(self: Device) -> object:
        facts = real(self)
        pids.append(self.process.pid)
        return facts

    monkeypatch.setattr(Device, "ready", ready)
    return pids


def test_two_devices_leave_the_store_of_one(
    videos: Path, expected: Path, tmp_path: Path, device_pids: list[int]
) -> None:
    progress: list[RunFigures] = []

    class Watch(Reporter):
        def advance(self, task: str, done: int, figures: Any = "") -> None:
            progress[:] = [figures]

    report = extract(videos, tmp_path / "feats.h5", config=TWO, reporter=Watch())
    assert len(device_pids) == 2
    assert_same_store(tmp_path / "feats.h5", expected)
    assert [video.key for video in report.failed] == ["broken"]
    assert leftovers(tmp_path) == []
    written = json.loads((tmp_path / "feats.h5.report.json").read_text())
    one = json.loads(expected.with_name("feats.h5.report.json").read_text())
    for name in ("counts", "clips", "videos", "settings"):
        same = [{**v, "path": ""} for v in written[name]] if name == "videos" else written[name]
        other = [{**v, "path": ""} for v in one[name]] if name == "videos" else one[name]
        assert same == other, name
    assert (progress[0].n_ended, progress[0].n_failed) == (9, 1)
    for pid in device_pids:
        assert not Path(f"/proc/{pid}").exists()


_HARSH = """
import signal, socket, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
socket.setdefaulttimeout(0.01)
from dataclasses import replace
from tests.extraction.ray_driver import OPTIONS
from tspcli.extraction import extract
extract(sys.argv[1], sys.argv[2], config=replace(OPTIONS, device="cpu,cpu"))
"""


def test_a_program_with_rules_of_its_own_for_pipes_and_sockets(
    videos: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    command = [sys.executable, "-c", _HARSH, str(videos), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_store(out, expected)


def test_the_videos_of_a_killed_device_are_done_by_the_other(
    videos: Path, expected: Path, tmp_path: Path, device_pids: list[int]
) -> None:
    class KillFirst(Pids):
        def result(self, result: VideoResult) -> None:
            self.pids = device_pids[:1]
            super().result(result)

    reporter = KillFirst(2, [])
    report = extract(videos, tmp_path / "feats.h5", config=TWO, reporter=reporter)
    assert "was killed by SIGKILL" in report.notes[0]
    assert "done by the other devices" in report.notes[0]
    assert report.notes[0] in reporter.messages
    assert_same_store(tmp_path / "feats.h5", expected)
    assert leftovers(tmp_path) == []
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 9
    # What was under way on the killed one is counted once.
    assert report.video_s == pytest.approx(sum(video.duration_s or 0.0 for video in report.videos))


def test_when_all_devices_are_killed_the_run_ends_and_goes_on_later(
    videos: Path, expected: Path, tmp_path: Path, device_pids: list[int]
) -> None:
    class KillAll(Pids):
        def result(self, result: VideoResult) -> None:
            self.pids = device_pids[:2]
            super().result(result)

    reporter = KillAll(3, [])
    with pytest.raises(TspError, match="no device is left"):
        extract(videos, tmp_path / "feats.h5", config=TWO, reporter=reporter)
    done = {result.key for result in reporter.seen if result.status == "done"}
    report = extract(videos, tmp_path / "feats.h5", config=TWO)
    assert done <= {video.key for video in report.with_status("kept")}
    assert_same_store(tmp_path / "feats.h5", expected)
    assert leftovers(tmp_path) == []


def test_an_interrupted_run_leaves_no_process_and_goes_on(
    videos: Path, expected: Path, tmp_path: Path, device_pids: list[int]
) -> None:
    class Interrupt(Reporter):
        def result(self, result: VideoResult) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "feats.h5", config=TWO, reporter=Interrupt())
    assert not any(Path(f"/proc/{pid}").exists() for pid in device_pids)
    report = extract(videos, tmp_path / "feats.h5", config=ONE)
    assert report.with_status("kept")
    assert_same_store(tmp_path / "feats.h5", expected)


def test_a_run_that_is_told_to_stop_finishes_what_is_under_way(
    videos: Path, tmp_path: Path, device_pids: list[int]
) -> None:
    class Stop(Pids):
        asked = 0

        def stop_requested(self) -> bool:
            self.asked += 1
            return len(self.seen) >= 2

    many = tmp_path / "many"
    many.mkdir()
    for number in range(16):
        shutil.copy(videos / "v1.mp4", many / f"v{number:02}.mp4")
    out = tmp_path / "feats.h5"
    reporter = Stop(-1, [])
    with pytest.raises(KeyboardInterrupt):
        extract(many, out, config=TWO, reporter=reporter)
    assert reporter.asked > 2 and not any(Path(f"/proc/{pid}").exists() for pid in device_pids)
    done = {result.key for result in reporter.seen}
    assert {result.status for result in reporter.seen} == {"done"}
    assert 2 <= len(done) < 16 and not out.exists()
    assert {read_part(path).key for path in tmp_path.glob("feats.h5.parts/*.part")} == done


@pytest.mark.slow
def test_a_killed_main_process_takes_its_devices_with_it(
    videos: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    command = [sys.executable, "-m", "tspcli", "extract", "-v", str(videos), "-o", str(out)]
    command += ["--weights", "random", "--backbone", "tiny", "--seed", "1", "--batch-size", "3"]
    command += ["--stride", "4", "--workers", "2", "--device", "cpu,cpu"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    parts = tmp_path / "feats.h5.parts"
    deadline = time.monotonic() + 120
    while not list(parts.glob("*.part")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = _descendants(process.pid)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    assert_same_store(out, expected)
    assert leftovers(tmp_path) == []


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


@pytest.mark.slow
def test_global_features_too(videos: Path, tmp_path: Path) -> None:
    compute_gvf(videos, tmp_path / "one.h5", config=ONE)
    compute_gvf(videos, tmp_path / "two.h5", config=TWO)
    one, two = read_gvf(tmp_path / "one.h5"), read_gvf(tmp_path / "two.h5")
    assert list(one) == list(two) and len(one) == 8
    for key in one:
        assert (one[key] == two[key]).all()
    assert one.metadata == two.metadata


@pytest.mark.slow
def test_the_runs_own_error_ends_it(videos: Path, tmp_path: Path) -> None:
    class Vanish(Reporter):
        def start(self, task: str, total: int, done: int = 0, about: object = "") -> None:
            # Where parts are written aside there is a file now.
            folder = tmp_path / "feats.h5.parts"
            (folder / "settings.json").unlink()
            folder.rmdir()
            folder.write_text("in the way")

    with pytest.raises(StoreError, match="cannot be written"):
        extract(videos, tmp_path / "feats.h5", config=TWO, reporter=Vanish())


def test_devices_that_make_no_sense_are_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'nonsense' is no device"):
        extract(videos, tmp_path / "f.h5", config=TWO, device="cpu,nonsense")
    with pytest.raises(UsageError, match="Both --gpus 2 and --device cpu"):
        extract(videos, tmp_path / "f.h5", config=ONE, gpus=2)
    with pytest.raises(UsageError, match="torch sees"):
        extract(videos, tmp_path / "f.h5", config=ONE, device="auto", gpus=1000)
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    with pytest.raises(UsageError, match="loaded already"):
        extract(videos, tmp_path / "f.h5", config=TWO, encoder=encoder)


@pytest.mark.slow
def test_encoders_that_differ_are_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Device.__init__
    seeds = iter((1, 2))

    def other_seed(self: Device, name: str, config: ExtractConfig, n_threads: int | None) -> None:
        from dataclasses import replace

        real(self, name, replace(config, seed=next(seeds)), n_threads)

    monkeypatch.setattr(Device, "__init__", other_seed)
    runner = DevicesRunner(TWO, ["cpu", "cpu"])
    try:
        with pytest.raises(UsageError, match=r"encoders on cpu \(process 1\) and cpu \(process 2"):
            runner.start(Reporter())
    finally:
        runner.close()
