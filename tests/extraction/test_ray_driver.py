"""The driver of a Ray run: what it hands out, loses and hands out again (see stand_in_ray.py)."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.builders.videos import make_mixed_videos
from tests.extraction.ray_driver import OPTIONS
from tests.extraction.same import assert_same_store, leftovers
from tests.extraction.stand_in_ray import StandIn
from tspcli.core.progress import Reporter
from tspcli.encoders import Encoder
from tspcli.errors import StoreError, TspError, UsageError
from tspcli.extraction import ExtractConfig, VideoResult, extract, ray_actor
from tspcli.extraction import ray_transport as ray_cluster
from tspcli.store.parts import read_part


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed_videos(tmp_path_factory.mktemp("videos"), [90, 40, 150, 12, 70])


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "feats.h5"
    extract(videos, out, config=OPTIONS)
    return out


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(2)
    made.install(monkeypatch)
    real, lock = ray_actor.load_configured_encoder, threading.Lock()

    def one_at_a_time(config: ExtractConfig, device: str) -> Encoder:
        # Random weights are drawn from torch's one generator, which nodes do not share.
        with lock:
            return real(config, device)

    monkeypatch.setattr(ray_actor, "load_configured_encoder", one_at_a_time)
    return made


class After(Reporter):
    """Calls something once when some videos have ended."""

    def __init__(self, count: int, action: Any) -> None:
        self.count = count
        self.action = action
        self.seen: list[VideoResult] = []

    def result(self, result: VideoResult) -> None:
        self.seen.append(result)
        if len(self.seen) == self.count:
            self.action()


def test_a_node_is_removed_and_the_store_is_that_of_one_machine(
    cluster: StandIn, videos: Path, expected: Path, tmp_path: Path
) -> None:
    reporter = After(1, lambda: cluster.remove("n0"))
    report = extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert len(cluster.actors) == 2
    assert any("encoder 1 on node 10.0.0.0 (n0) is gone" in note for note in report.notes)
    assert [video.key for video in report.failed] == ["broken"]
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 6
    assert_same_store(tmp_path / "f.h5", expected)
    assert leftovers(tmp_path) == []
    assert all(actor.dead for actor in cluster.actors)


class StopAfter(After):
    """Wants the run to end when some videos have."""

    def __init__(self, count: int) -> None:
        super().__init__(count, lambda: None)

    def stop_requested(self) -> bool:
        return len(self.seen) >= self.count


def test_a_run_that_is_told_to_stop_finishes_what_is_under_way(
    cluster: StandIn, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[object] = []
    real = ray_actor.EncoderActor.drain
    monkeypatch.setattr(
        ray_actor.EncoderActor, "drain", lambda self: (drained.append(self), real(self))
    )
    many = tmp_path / "many"
    many.mkdir()
    for number in range(16):
        shutil.copy(videos / "v1.mp4", many / f"v{number:02}.mp4")
    out = tmp_path / "f.h5"
    reporter = StopAfter(3)
    with pytest.raises(KeyboardInterrupt):
        extract(many, out, config=OPTIONS, engine="ray", reporter=reporter)
    assert len(drained) == 2 and all(actor.dead for actor in cluster.actors)
    done = {result.key for result in reporter.seen}
    assert {result.status for result in reporter.seen} == {"done"}
    assert 3 <= len(done) < 16 and not out.exists()
    assert {read_part(path).key for path in tmp_path.glob("f.h5.parts/*.part")} == done


def test_a_lost_encoder_is_started_again_where_its_node_lives(
    cluster: StandIn, videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_LOOK_EVERY_S", 0.0)

    def lose_all() -> None:
        for actor in list(cluster.actors):
            actor.die()

    reporter = After(1, lose_all)
    extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray", reporter=reporter)
    assert len(cluster.actors) >= 3
    assert len(reporter.seen) == len({result.key for result in reporter.seen}) == 6
    assert_same_store(tmp_path / "f.h5", expected)


def test_a_place_that_loses_every_encoder_is_given_up(
    cluster: StandIn, videos: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_LOOK_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        # A library that takes its process along.
        patch.setattr(ray_actor.EncoderActor, "encode", _crash)
        patch.setattr(ray_cluster, "_MAX_LOSSES", 2)
        with pytest.raises(TspError, match="each of 2 was lost 2 times"):
            extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
    assert not (tmp_path / "f.h5").exists()
    extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
    assert_same_store(tmp_path / "f.h5", expected)


def _crash(self: object, file: object, source_bytes: int) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_errors_of_the_run_end_it(
    cluster: StandIn, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, file: object, source_bytes: int) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(ray_actor.EncoderActor, "encode", fail)
        with pytest.raises(StoreError, match="The disk is full"):
            extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
    with monkeypatch.context() as patch:
        patch.setattr(ray_actor, "file_size", lambda path: 0)
        with pytest.raises(TspError, match="does not see"):
            extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
    with monkeypatch.context() as patch:
        patch.setattr(ray_actor, "__version__", "0.0.1")
        with pytest.raises(UsageError, match=r"has tspcli 0\.0\.1"):
            extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
    cluster.nodes.clear()
    with pytest.raises(UsageError, match="no node for an encoder"):
        extract(videos, tmp_path / "f.h5", config=OPTIONS, engine="ray")
