"""A pool that takes videos while it runs: it waits, and is woken."""

from __future__ import annotations

import threading

import pytest

from tests.video.pools import make_pool_videos, pool_of
from tspcli.video import Finished, Frames, Idle, VideoFile, Woken


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoFile]:
    return make_pool_videos(tmp_path_factory.mktemp("videos"))


def test_a_pool_held_open_takes_videos_until_it_is_told_to_finish(videos: list[VideoFile]) -> None:
    told: list[str] = []
    late = [videos[1], videos[3]]
    with pool_of(videos[:1], hold_open=True) as pool:
        for event in pool.live():
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Finished):
                told.append(event.job.key)
            elif isinstance(event, Idle):
                told.append("idle")
                if late:
                    pool.add(late.pop(0))
                else:
                    pool.finish()
    assert told == ["v0", "idle", "v1", "idle", "v3", "idle"]


def test_a_pool_that_waits_is_woken_and_its_idle_workers_live(videos: list[VideoFile]) -> None:
    pids: list[list[int]] = []
    with pool_of(videos[3:], hold_open=True, timeout_s=0.5, grace_s=0.2) as pool:
        for event in pool.live():
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Idle):
                pids.append(pool.pids)
                # Longer than a busy worker may be silent.
                threading.Timer(1.5, pool.wake).start()
            elif isinstance(event, Woken):
                pids.append(pool.pids)
                pool.finish()
    assert pids[0] and pids[0] == pids[1]
