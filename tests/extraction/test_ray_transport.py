"""A Ray cluster: the rows of this machine's run, whatever is lost on the way.

The cluster is two nodes on this machine. Nothing here measures time; the waits end when what they
wait for has happened.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.refusals import refused
from tests.extraction.ray_driver import OPTIONS
from tests.extraction.same import assert_same_store, leftovers
from tspcli.core.progress import Reporter
from tspcli.errors import UsageError
from tspcli.extraction import VideoResult, extract, supervisor
from tspcli.extraction.extract_config import ExtractConfig
from tspcli.extraction.extraction_run import compute_gvf
from tspcli.extraction.ray_transport import find_places
from tspcli.store import open_store
from tspcli.store.gvf import read_gvf

ROOT = Path(__file__).parents[2]
PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A loaded machine is no failure.
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with one core each beside a head that has none; this process is connected."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
    from ray.cluster_utils import Cluster

    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    # Ray gives a node 30 s to start, whatever else the machine does.
    monkeypatch.setattr("ray._private.node.time", SlowClock())
    made = Cluster()
    try:
        add_node(made, num_cpus=0, include_dashboard=False)
        made.workers = [add_node(made, num_cpus=1) for _ in range(2)]
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def add_node(cluster: Any, **options: Any) -> Any:
    """Start a node without what no test needs."""
    spare = {"include_log_monitor": False, "no_monitor": True}
    return cluster.add_node(object_store_memory=100 << 20, **spare, **options)


class SlowClock:
    """The time module as seen by those who would give up too early."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / 20


class Break(Reporter):
    """Calls something once when some videos have ended."""

    def __init__(self, after: int, action: Any) -> None:
        self.after = after
        self.action = action
        self.seen: list[VideoResult] = []
        self.messages: list[str] = []

    def result(self, result: VideoResult) -> None:
        self.seen.append(result)
        if len(self.seen) == self.after:
            self.action()

    def message(self, text: str) -> None:
        self.messages.append(text)


def assert_whole(reporter: Break, out: Path, expected: Path, n_videos: int = 9) -> None:
    """Each video was told once, and the store is what one machine makes."""
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == n_videos
    assert_same_store(out, expected)
    assert leftovers(out.parent) == []


def encoder_pids() -> list[int]:
    """The processes of the encoders that live."""
    return pids_of(lambda command: command.startswith(b"ray::EncoderActor"))


def decoder_pids() -> list[int]:
    """The decode processes of the encoders that live."""
    encoders = encoder_pids()
    return pids_of(lambda command: b"tspcli.video.decode_worker" in command, encoders)


def pids_of(wanted: Callable[[bytes], bool], parents: list[int] | None = None) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if wanted(command) and (parents is None or parent in parents):
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.slow
def test_two_nodes_leave_the_store_of_one_machine_also_when_an_encoder_is_killed(
    cluster: Any, videos: Path, expected: Path, tmp_path: Path
) -> None:
    reporter = Break(2, lambda: os.kill(encoder_pids()[0], signal.SIGKILL))
    report = extract(videos, tmp_path / "feats.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert [video.key for video in report.failed] == ["broken"]
    assert "is gone" in report.notes[0]
    assert_whole(reporter, tmp_path / "feats.h5", expected)
    again = extract(videos, tmp_path / "feats.h5", config=OPTIONS)
    assert {video.status for video in again.videos} == {"kept", "failed"}


def test_two_nodes_share_a_run(cluster: Any, few: Path, few_expected: Path, tmp_path: Path) -> None:
    seen: list[list[int]] = []
    reporter = Break(1, lambda: seen.append(encoder_pids()))
    report = extract(few, tmp_path / "f.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert len(seen[0]) == 2, "an encoder a node"
    assert [video.key for video in report.failed] == ["broken"] and not report.notes
    assert_whole(reporter, tmp_path / "f.h5", few_expected, n_videos=6)


@pytest.mark.slow
def test_decode_processes_that_are_killed_again_and_again(
    cluster: Any, videos: Path, expected: Path, tmp_path: Path
) -> None:
    class KillAll(Break):
        def result(self, result: VideoResult) -> None:
            super().result(result)
            if len(self.seen) in (1, 3, 5):
                pids.update(decoder_pids())
                for pid in decoder_pids():
                    os.kill(pid, signal.SIGKILL)

    pids: set[int] = set()
    reporter = KillAll(-1, None)
    extract(videos, tmp_path / "feats.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert len(pids) >= 2
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 9
    # A video whose process died twice has been given to another decoder, or is a failure.
    extract(videos, tmp_path / "feats.h5", config=OPTIONS, engine="ray")
    with open_store(tmp_path / "feats.h5") as store, open_store(expected) as other:
        assert list(store) == list(other)
        for key, video in store.items():
            np.testing.assert_array_equal(video.rows, other[key].rows)


@pytest.mark.slow
def test_an_encoder_that_is_stopped_is_given_up(
    cluster: Any, videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENT_S", 10.0)
    reporter = Break(1, lambda: os.kill(encoder_pids()[0], signal.SIGSTOP))
    report = extract(videos, tmp_path / "feats.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert "no sign of life" in report.notes[0]
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 9
    assert_same_store(tmp_path / "feats.h5", expected)


@pytest.mark.slow
def test_a_node_that_is_removed_loses_nothing(
    cluster: Any, videos: Path, expected: Path, tmp_path: Path
) -> None:
    reporter = Break(2, lambda: cluster.remove_node(cluster.workers[0], allow_graceful=False))
    report = extract(videos, tmp_path / "feats.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert any("is gone" in note for note in report.notes)
    assert_whole(reporter, tmp_path / "feats.h5", expected)


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_stopped(
    cluster: Any, videos: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    command = [sys.executable, "-m", "tests.extraction.ray_driver"]
    command += [str(videos), str(out), cluster.address]
    driver = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "feats.h5.parts").glob("*.part"))) < 2:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    parts = {path.name for path in (tmp_path / "feats.h5.parts").glob("*.part")}
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert len(parts) >= 2
    assert_same_store(out, expected)
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_driver_that_is_told_to_stop_finishes_what_is_under_way(
    cluster: Any, videos: Path, tmp_path: Path
) -> None:
    many, out = tmp_path / "many", tmp_path / "feats.h5"
    many.mkdir()
    for number in range(40):
        shutil.copy(videos / "v0.mp4", many / f"v{number:02}.mp4")
    command = [sys.executable, "-m", "tspcli", "extract", "-v", str(many), "-o", str(out)]
    command += ["--weights", "random", "--backbone", "tiny", "--seed", "1", "--batch-size", "3"]
    command += ["--stride", "4", "--workers", "2", "--device", "cpu", "--engine", "ray"]
    command += ["--ray-address", cluster.address]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "feats.h5.parts").glob("*.part"))) < 2:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143, said
    assert "Stopping" in said and "Finished videos are kept" in said and "Traceback" not in said
    while encoder_pids():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = len(list((tmp_path / "feats.h5.parts").glob("*.part")))
    assert 2 <= kept < 40 and not out.exists()
    report = extract(many, out, config=OPTIONS)
    assert len(report.with_status("kept")) == kept and len(report.with_status("done")) == 40 - kept


@pytest.mark.slow
def test_global_features(cluster: Any, videos: Path, tmp_path: Path) -> None:
    compute_gvf(videos, tmp_path / "one.h5", config=OPTIONS)
    from dataclasses import replace

    compute_gvf(videos, tmp_path / "ray.h5", config=replace(OPTIONS, engine="ray"))
    one, other = read_gvf(tmp_path / "one.h5"), read_gvf(tmp_path / "ray.h5")
    assert list(one) == list(other) and len(one) == 8
    for key in one:
        assert (one[key] == other[key]).all()
    assert one.metadata == other.metadata


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "NodeManagerAddress": name, "Resources": resources}


def test_where_encoders_go() -> None:
    gpus = [node("b", CPU=16, GPU=2), node("a", CPU=3, GPU=1), node("c", CPU=64), node("d", False)]

    def where(nodes: list[dict[str, Any]], **options: Any) -> list[tuple[str, str, int]]:
        config = ExtractConfig(engine="ray", **options)
        return [(place.node, place.device, place.n_cpus) for place in find_places(nodes, config)]

    assert where(gpus) == [("a", "cuda", 3), ("b", "cuda", 8), ("b", "cuda", 8)]
    assert where(gpus, gpus=2) == where(gpus)[:2]
    assert where(gpus[2:]) == [("c", "cpu", 8)] * 8
    assert where([node("x", CPU=3)]) == [("x", "cpu", 3)]
    assert where([node("x", CPU=12), node("head")]) == [("x", "cpu", 12)]
    assert where(gpus[2:], device="cuda") == where(gpus[3:]) == []
    assert len(where(gpus, device="cpu")) == len(where(gpus, runtime="openvino")) == 11
    with refused(UsageError, option="--device", value="cuda:1"):
        where(gpus, device="cuda:1")
    for name, value in (("device", "cpu"), ("runtime", "openvino")):
        with refused(UsageError, option="--gpus", value=2):
            where(gpus, gpus=2, **{name: value})
