"""A pool that takes videos while it runs: it waits, is woken, and decodes some afresh."""

from __future__ import annotations

import threading

import pytest

from tests.builders.videos import read_number
from tests.video.pools import expected, make_pool_videos, pool_of
from tspcli.video import Finished, Frames, Idle, Opened, VideoFile, Woken


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


def test_a_video_decoded_afresh_comes_whole(videos: list[VideoFile]) -> None:
    kept: list[tuple[int, int]] = []
    n_opened = n_chunks = 0
    with pool_of(videos[:1], hold_open=True, slots=1) as pool:
        for event in pool.live():
            if isinstance(event, Opened):
                n_opened += 1
                kept = []
            elif isinstance(event, Frames):
                n_chunks += 1
                for ticks, rgb in zip(event.ticks, event.pixels, strict=True):
                    kept += [(tick, read_number(rgb)) for tick in ticks]
                event.release()
                if n_chunks == 2:
                    pool.requeue(videos[0])
            elif isinstance(event, Finished):
                pool.finish()
    assert n_opened == 2
    assert kept == expected(240)


def test_a_waiting_video_is_decoded_once_however_often_it_is_to_be_requeued(
    videos: list[VideoFile],
) -> None:
    """As where a decode worker and the device that its video was for die together."""
    opened: list[str] = []
    asked = False
    with pool_of(videos[2:], workers=1, hold_open=True) as pool:
        for event in pool.live():
            if isinstance(event, Frames):
                event.release()
            if isinstance(event, Opened):
                opened.append(event.job.key)
            if not asked and opened:
                asked = True
                pool.requeue(videos[3])
                pool.requeue(videos[3])
                pool.finish()
    assert opened == [videos[2].key, videos[3].key]
