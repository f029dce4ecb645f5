"""Workers on devices and on a Ray cluster: the rows of one device's run, whatever is lost.

The cluster is a stand-in whose nodes are threads (stand_in_ray.py); real nodes are in
test_ray_transport.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.extraction import faulty_worker
from tests.extraction.ray_driver import OPTIONS as ONE
from tests.extraction.same import assert_same_store, leftovers
from tests.extraction.stand_in_ray import StandIn
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import StoreError, TspError, UsageError
from tspcli.extraction import (
    ExtractConfig,
    Reporter,
    RunFigures,
    VideoResult,
    encode_worker,
    extract,
    supervisor,
)
from tspcli.extraction.extract_config import load_configured_encoder
from tspcli.extraction.extraction_run import compute_gvf
from tspcli.extraction.ray_transport import EncoderActor, RayTransport
from tspcli.extraction.task import Place, Task, Update
from tspcli.extraction.transports import ChildTransport, Worker
from tspcli.store.gvf import read_gvf
from tspcli.store.parts import read_part

TWO = replace(ONE, device="cpu,cpu")


@dataclass
class Crew:
    """Two workers, reached one way or the other.

    Attributes:
        config: Settings of a run that uses them.
        patch: For this test.
        flag: Where a fault that happens once leaves a file.
        started: The places at which workers were started, one for each.
        pids: Of the workers, if they are processes.
    """

    config: ExtractConfig
    patch: pytest.MonkeyPatch
    flag: Path
    started: list[Place] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)

    def befall(self, kind: str) -> None:
        """Let something happen to workers that begin a video; see faulty_worker.py."""
        self.patch.setenv(faulty_worker.VARIABLE, f"{kind} {self.flag}")

    def note_starts(self, transport: type) -> None:
        real = transport.start  # type: ignore[attr-defined]

        def start(this: Any, place: Place) -> Worker:
            worker: Worker = real(this, place)
            self.started.append(place)
            if hasattr(worker, "process"):
                self.pids.append(worker.process.pid)
            return worker

        self.patch.setattr(transport, "start", start)

    def are_gone(self) -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in self.pids)


@pytest.fixture(params=["devices", "ray"])
def crew(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Crew]:
    made = Crew(TWO, monkeypatch, tmp_path / "befallen")
    monkeypatch.setattr(supervisor, "RESTART_EVERY_S", 0.1)
    if request.param == "devices":
        monkeypatch.setattr(ChildTransport, "module", "tests.extraction.faulty_worker")
        made.note_starts(ChildTransport)
        yield made
        return
    made.config = replace(ONE, engine="ray")
    StandIn(2).install(monkeypatch)
    made.note_starts(RayTransport)
    monkeypatch.setattr(Task, "open_sink", faulty_worker.open_sink)
    monkeypatch.setattr(encode_worker, "load_configured_encoder", one_at_a_time)
    monkeypatch.setattr(encode_worker, "STUCK_S", faulty_worker.STUCK_S)
    monkeypatch.setattr(encode_worker, "CLIP_S", 0.0)
    hang_on_stop(monkeypatch, made.flag)
    faulty_worker.released.clear()
    yield made
    # Threads that are still inside torch when Python ends take it down.
    faulty_worker.released.set()
    for thread in threading.enumerate():
        if thread.name == "tspcli-engine":
            thread.join(60)


_loading = threading.Lock()


def one_at_a_time(config: ExtractConfig, device: str) -> Encoder:
    """Random weights are drawn from torch's one generator, which nodes do not share."""
    with _loading:
        return load_configured_encoder(config, device)


def hang_on_stop(patch: pytest.MonkeyPatch, flag: Path) -> None:
    """Let the first worker report nothing more once the fault has befallen one."""
    real = EncoderActor.receive
    silent: list[EncoderActor] = []

    def receive(self: EncoderActor) -> Update:
        update = real(self)
        if os.environ.get(faulty_worker.VARIABLE, "").startswith("stop") and flag.exists():
            silent.append(self)
            if silent[0] is self:
                faulty_worker.released.wait()
        return update

    patch.setattr(EncoderActor, "receive", receive)


class Watch(Reporter):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[VideoResult] = []
        self.messages: list[str] = []
        self.figures: RunFigures | None = None

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self.figures = replace(figures)

    def result(self, result: VideoResult) -> None:
        self.seen.append(result)

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_two_workers_leave_the_store_of_one(
    crew: Crew, few: Path, few_expected: Path, tmp_path: Path
) -> None:
    out, watch = tmp_path / "out" / "feats.h5", Watch()
    out.parent.mkdir()
    report = extract(few, out, config=crew.config, reporter=watch)
    assert len(crew.started) == 2 and crew.are_gone()
    assert_same_store(out, few_expected)
    assert [video.key for video in report.failed] == ["broken"] and not report.notes
    assert leftovers(out.parent) == []
    written = json.loads((out.parent / "feats.h5.report.json").read_text())
    one = json.loads(few_expected.with_name("f.h5.report.json").read_text())
    for name in ("counts", "clips", "videos", "settings"):
        assert written[name] == one[name], name
    assert watch.figures is not None
    assert (watch.figures.n_ended, watch.figures.n_failed) == (6, 1)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("die", ("SIGKILL", "illegal memory access")),
        ("stop", ("no sign of life for 6 s",)),
        ("stick", ("no batch within 6 s",)),
    ],
    ids=["dies", "is silent", "makes no progress"],
)
def test_a_lost_worker_is_replaced_and_its_videos_are_done(
    crew: Crew, few: Path, few_expected: Path, tmp_path: Path, fault: str, words: tuple[str, ...]
) -> None:
    crew.patch.setattr(supervisor, "SILENT_S", 6.0)
    crew.befall(fault)
    out, watch = tmp_path / "out" / "f.h5", Watch()
    out.parent.mkdir()
    report = extract(few, out, config=crew.config, reporter=watch)
    assert crew.flag.exists(), "nothing happened"
    assert any(some in report.notes[0] for some in words), report.notes
    assert report.notes[0] in watch.messages
    assert len(crew.started) >= 3 and crew.are_gone()
    assert_same_store(out, few_expected)
    assert leftovers(out.parent) == []
    assert len(watch.seen) == len({result.key for result in watch.seen}) == 6
    # What was under way at the lost one is counted once.
    assert report.video_s == pytest.approx(sum(video.duration_s or 0.0 for video in report.videos))


@pytest.mark.faults
def test_a_video_that_kills_its_worker_three_times_is_given_up(
    crew: Crew, few: Path, few_expected: Path, tmp_path: Path
) -> None:
    crew.befall("kill")
    watch = Watch()
    report = extract(few, tmp_path / "f.h5", config=crew.config, reporter=watch)
    ends = {video.key: (video.status, video.reason) for video in report.videos}
    assert ends.pop(faulty_worker.KILLER) == ("failed", "crashed")
    assert ends.pop("broken")[0] == "failed"
    assert set(ends.values()) == {("done", None)}, "no other video is blamed"
    assert len(report.notes) == 3 and len(watch.seen) == 6
    crew.befall("nothing")
    extract(few, tmp_path / "f.h5", config=ONE)
    assert_same_store(tmp_path / "f.h5", few_expected)


@pytest.mark.faults
def test_a_run_that_loses_every_worker_again_and_again_ends_and_resumes_later(
    crew: Crew, few: Path, few_expected: Path, tmp_path: Path
) -> None:
    crew.patch.setattr(supervisor, "MAX_PLACE_LOSSES", 1)
    crew.befall("die-always")
    with pytest.raises(TspError) as caught:
        extract(few, tmp_path / "f.h5", config=crew.config)
    assert caught.value.data["places"] == 2
    assert not (tmp_path / "f.h5").exists() and crew.are_gone()
    crew.befall("nothing")
    extract(few, tmp_path / "f.h5", config=ONE)
    assert_same_store(tmp_path / "f.h5", few_expected)


@pytest.mark.faults
@pytest.mark.parametrize(("fault", "error"), [("disk", StoreError), ("memory", TspError)])
def test_an_error_of_the_run_ends_it(
    crew: Crew, few: Path, tmp_path: Path, fault: str, error: type[TspError]
) -> None:
    crew.befall(fault)
    with pytest.raises(error) as caught:
        extract(few, tmp_path / "f.h5", config=crew.config)
    assert type(caught.value) is error and len(crew.started) == 2 and crew.are_gone()


class StopAfter(Watch):
    """Wants the run to stop when some videos have ended."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def stop_requested(self) -> bool:
        return len(self.seen) >= self.count


@pytest.mark.faults
def test_a_run_that_is_told_to_stop_finishes_what_is_under_way(
    crew: Crew, few: Path, tmp_path: Path
) -> None:
    crew.befall("slow")
    many = tmp_path / "many"
    many.mkdir()
    for number in range(24):
        shutil.copy(few / "v1.mp4", many / f"v{number:02}.mp4")
    out, reporter = tmp_path / "f.h5", StopAfter(2)
    with pytest.raises(KeyboardInterrupt):
        extract(many, out, config=crew.config, reporter=reporter)
    assert crew.are_gone()
    done = {result.key for result in reporter.seen}
    assert {result.status for result in reporter.seen} == {"done"}
    assert 2 <= len(done) < 24 and not out.exists()
    assert {read_part(path).key for path in tmp_path.glob("f.h5.parts/*.part")} == done


class Interrupt(Reporter):
    """Ends the run, as Ctrl-C does, when a video is done."""

    def result(self, result: VideoResult) -> None:
        if result.status == "done":
            raise KeyboardInterrupt


@pytest.mark.faults
def test_an_interrupted_run_leaves_no_worker_and_resumes(
    crew: Crew, few: Path, few_expected: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(few, tmp_path / "f.h5", config=crew.config, reporter=Interrupt())
    assert crew.are_gone()
    assert extract(few, tmp_path / "f.h5", config=ONE).with_status("kept")
    assert_same_store(tmp_path / "f.h5", few_expected)


_HARSH = """
import signal, socket, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
socket.setdefaulttimeout(0.01)
from dataclasses import replace
from tests.extraction.ray_driver import OPTIONS
from tspcli.extraction import extract
extract(sys.argv[1], sys.argv[2], config=replace(OPTIONS, device="cpu,cpu"))
"""


@pytest.mark.slow
def test_a_program_with_rules_of_its_own_for_pipes_and_sockets(
    few: Path, few_expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "feats.h5"
    command = [sys.executable, "-c", _HARSH, str(few), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_store(out, few_expected)


@pytest.mark.slow
def test_a_killed_main_process_takes_its_workers_with_it(
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
    process.send_signal(signal.SIGKILL)
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
def test_global_features_too(crew: Crew, few: Path, tmp_path: Path) -> None:
    compute_gvf(few, tmp_path / "one.h5", config=ONE)
    compute_gvf(few, tmp_path / "two.h5", config=crew.config)
    one, two = read_gvf(tmp_path / "one.h5"), read_gvf(tmp_path / "two.h5")
    assert list(one) == list(two) and len(one) == 5
    for key in one:
        assert (one[key] == two[key]).all()
    assert one.metadata == two.metadata


def test_devices_that_make_no_sense_are_refused(few: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        extract(few, tmp_path / "f.h5", config=TWO, device="cpu,nonsense")
    for options in ({"gpus": 2}, {"device": "auto", "gpus": 1000}):
        with pytest.raises(UsageError) as caught:
            extract(few, tmp_path / "f.h5", config=ONE, **options)
        assert caught.value.data == {"option": "--gpus", "value": options["gpus"]}
    encoder = load_encoder("random", backbone="tiny", seed=1, device="cpu")
    with pytest.raises(UsageError):
        extract(few, tmp_path / "f.h5", config=TWO, encoder=encoder)
    with pytest.raises(UsageError) as caught:
        extract(few, tmp_path / "f.h5", config=TWO, profile=tmp_path / "trace.json")
    assert caught.value.data["option"] == "--profile"


@pytest.mark.parametrize("crew", ["ray"], indirect=True)
def test_encoders_and_versions_that_differ_are_refused(
    crew: Crew, few: Path, tmp_path: Path
) -> None:
    seeds = iter((1, 2))

    def other_seed(config: ExtractConfig, device: str) -> Encoder:
        return one_at_a_time(replace(config, seed=next(seeds)), device)

    with crew.patch.context() as patch:
        # Both are asked before a video is handed out.
        patch.setattr(RayTransport, "needs_all", True)
        patch.setattr(encode_worker, "load_configured_encoder", other_seed)
        with pytest.raises(UsageError) as caught:
            extract(few, tmp_path / "f.h5", config=crew.config)
        assert len(caught.value.data["places"]) == 2  # type: ignore[arg-type]
    with crew.patch.context() as patch:
        patch.setattr(encode_worker, "__version__", "0.0.1")
        with pytest.raises(UsageError) as caught:
            extract(few, tmp_path / "f.h5", config=crew.config)
        assert caught.value.data["value"] == "0.0.1"
    with crew.patch.context() as patch:
        patch.setattr(encode_worker, "file_size", lambda path: 0)
        with pytest.raises(TspError) as caught:
            extract(few, tmp_path / "f.h5", config=crew.config)
        assert str(caught.value.data["path"]).endswith(".mp4")


@pytest.mark.faults
def test_a_removed_node_loses_nothing_and_a_cluster_without_nodes_is_refused(
    few: Path, few_expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = StandIn(2)
    cluster.install(monkeypatch)
    monkeypatch.setattr(encode_worker, "load_configured_encoder", one_at_a_time)
    config = replace(ONE, engine="ray")

    class Remove(Watch):
        def result(self, result: VideoResult) -> None:
            super().result(result)
            if len(self.seen) == 1:
                cluster.remove("n0")

    watch = Remove()
    report = extract(few, tmp_path / "f.h5", config=config, reporter=watch)
    assert len(cluster.actors) == 2 and all(actor.dead for actor in cluster.actors)
    assert any("10.0.0.0" in note for note in report.notes)
    assert len(watch.seen) == len({result.key for result in watch.seen}) == 6
    assert_same_store(tmp_path / "f.h5", few_expected)
    cluster.nodes.clear()
    with pytest.raises(UsageError):
        extract(few, tmp_path / "g.h5", config=config)
