"""A process that hangs instead of dying: the run goes on without it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.extraction.hanging_device import STUCK_S
from tests.extraction.ray_driver import OPTIONS as ONE
from tests.extraction.same import assert_same_store, leftovers
from tests.extraction.stand_in_ray import StandIn
from tspcli.core.child_process import ChildProcess
from tspcli.core.progress import Reporter
from tspcli.errors import TspError
from tspcli.extraction import VideoResult, extract, ray_actor
from tspcli.extraction import ray_transport as ray_cluster
from tspcli.extraction import service as pulse
from tspcli.extraction import supervisor as devices
from tspcli.extraction.service import Pulse
from tspcli.extraction.supervisor import Device
from tspcli.video import Idle

pytestmark = pytest.mark.faults
TWO = replace(ONE, device="cpu,cpu")


class Stop(Reporter):
    """Stops processes, as SIGSTOP does it, when the first video has ended."""

    def __init__(self, n_stopped: int, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[VideoResult] = []
        self.n_stopped = n_stopped
        self.pids: list[int] = []
        real = Device.ready

        def ready(device: Device) -> object:
            self.pids.append(device.process.pid)
            return real(device)

        patch.setattr(Device, "ready", ready)

    def result(self, result: VideoResult) -> None:
        self.seen.append(result)
        if len(self.seen) == 1:
            for pid in self.pids[: self.n_stopped]:
                os.kill(pid, signal.SIGSTOP)


def test_the_videos_of_a_stopped_device_are_done_by_the_other(
    videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_SILENT_S", 8.0)
    reporter = Stop(1, monkeypatch)
    report = extract(videos, tmp_path / "f.h5", config=TWO, reporter=reporter)
    assert "gave no sign of life for 8 s" in report.notes[0]
    assert "done by the other devices" in report.notes[0]
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 9
    assert_same_store(tmp_path / "f.h5", expected)
    assert leftovers(tmp_path) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in reporter.pids)


@pytest.mark.slow
def test_when_all_devices_are_stopped_the_run_ends_and_goes_on_later(
    videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_SILENT_S", 8.0)
    reporter = Stop(2, monkeypatch)
    with pytest.raises(TspError, match=r"no sign of life for 8 s; no device is left"):
        extract(videos, tmp_path / "f.h5", config=TWO, reporter=reporter)
    assert not any(Path(f"/proc/{pid}").exists() for pid in reporter.pids)
    extract(videos, tmp_path / "f.h5", config=TWO)
    assert_same_store(tmp_path / "f.h5", expected)


def test_a_device_that_hangs_in_its_encoder_is_given_up(
    videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSPCLI_TEST_HANG", str(tmp_path / "hangs"))
    monkeypatch.setattr(
        devices, "ChildProcess", lambda module: ChildProcess("tests.extraction.hanging_device")
    )
    out = tmp_path / "out" / "f.h5"
    out.parent.mkdir()
    report = extract(videos, out, config=TWO)
    assert (tmp_path / "hangs").exists()
    assert f"no batch was finished within {STUCK_S:g} s" in report.notes[0]
    assert "done by the other devices" in report.notes[0]
    assert_same_store(out, expected)
    assert leftovers(out.parent) == []


def test_a_process_that_takes_nothing_is_noticed_while_something_is_sent_to_it() -> None:
    child = ChildProcess("tests.extraction.hanging_device")
    try:
        os.kill(child.pid, signal.SIGSTOP)
        child.limit_sending(0.5)
        with pytest.raises(BlockingIOError):
            child.connection.send_bytes(bytes(8 << 20))
        child.hang_up()
        with pytest.raises(EOFError):
            child.connection.recv()
    finally:
        child.dispose()


class Source:
    """Gives one thing."""

    def live(self) -> Any:
        yield Idle()

    def wake(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


def test_what_counts_as_getting_on() -> None:
    beats: list[None] = []
    said: list[str] = []
    seen = Pulse(3.0, lambda: beats.append(None), said.append)

    def pass_s(seconds: int, *signs: Any) -> None:
        for _ in range(seconds):
            for sign in signs:
                sign()
            seen.step()

    pass_s(9)
    assert len(beats) == 9 and not said, "nobody is at work yet"
    seen.watch(True)
    pass_s(9, seen.turned)
    assert not said, "there is no work"
    taken = seen.watched(Source()).live()
    next(taken)
    pass_s(9, seen.advanced)
    assert not said, "both wait for the encoder, which finishes batches"
    pass_s(2, seen.turned)
    assert list(taken) == []
    pass_s(9, seen.turned)
    assert not said, "what was taken is done"
    pass_s(2)
    seen.turned()
    pass_s(2)
    assert not said
    pass_s(2)
    assert said == ["no batch was finished within 3 s"]

    seen.watch(True)
    taken = seen.watched(Source()).live()
    next(taken)
    pass_s(3, seen.turned)
    assert not said[1:]
    pass_s(1, seen.turned)
    assert said[1:], "the encoder's thread waits for frames that are not made ready"


@pytest.fixture
def freed() -> Any:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("silent", [True, False], ids=["stopped", "stuck"])
def test_a_hung_encoder_on_a_cluster_is_lost(
    videos: Path,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    freed: threading.Event,
    silent: bool,
) -> None:
    cluster = StandIn(2)
    cluster.install(monkeypatch)
    monkeypatch.setattr(ray_cluster, "_LOOK_EVERY_S", 0.5)
    lock = threading.Lock()
    real_load = ray_actor.load_configured_encoder

    def load(config: Any, device: str) -> Any:
        with lock:
            return real_load(config, device)

    monkeypatch.setattr(ray_actor, "load_configured_encoder", load)
    first: list[object] = []

    def hang(cls: Any, method: str) -> None:
        real = getattr(cls, method)

        def hanging(self: Any, *arguments: Any) -> Any:
            with lock:
                first.append(first[0] if first else self)
            if first[0] is self:
                freed.wait()
            return real(self, *arguments)

        monkeypatch.setattr(cls, method, hanging)

    if silent:
        monkeypatch.setattr(ray_cluster, "_SILENT_S", 6.0)
        hang(ray_actor.EncoderActor, "encode")
        hang(ray_actor.EncoderActor, "words")
        said = "does not answer"
    else:
        monkeypatch.setattr(pulse, "STUCK_S", 6.0)
        monkeypatch.setattr(pulse, "CLIP_S", 0.0)
        from tspcli.extraction.batch_encoder import BatchEncoder

        hang(BatchEncoder, "_start")
        said = "no batch was finished within 6 s"
    report = extract(videos, tmp_path / "f.h5", config=ONE, engine="ray")
    # Threads that are still inside torch when Python ends take it down.
    freed.set()
    for thread in threading.enumerate():
        if thread.name == "tspcli-engine":
            thread.join(60)
    assert said in report.notes[0] and "done again elsewhere" in report.notes[0]
    assert_same_store(tmp_path / "f.h5", expected)
