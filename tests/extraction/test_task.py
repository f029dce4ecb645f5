"""What is sent between a supervisor and its workers, and the queue of videos."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tspcli.errors import StoreError, TspError, UsageError, VideoError
from tspcli.extraction.task import Update, VideoQueue
from tspcli.video import VideoFile


@pytest.mark.parametrize(
    "error",
    [
        VideoError("damaged", "half of it", path="a.mp4", remedy="Copy it again."),
        StoreError("The disk is full.", remedy="Free some space.", path="/data"),
        UsageError("Nonsense.", option="--out", value=3),
    ],
)
def test_an_error_comes_out_of_another_process_as_it_went_in(error: TspError) -> None:
    again = pickle.loads(pickle.dumps(Update(error=error))).error
    assert type(again) is type(error)
    assert (str(again), again.__dict__) == (str(error), error.__dict__)


def queue_of(count: int) -> tuple[VideoQueue, list[VideoFile]]:
    videos = [VideoFile(Path(f"/gone/v{i}.mp4"), f"v{i}") for i in range(count)]
    return VideoQueue(videos), videos


def test_videos_are_handed_out_in_order_and_lost_ones_come_first() -> None:
    queue, (a, b, c) = queue_of(3)
    assert [queue.take(alone=False), queue.take(alone=False)] == [a, b]
    assert queue.give_back([a, b]) == []
    assert [queue.take(alone=False) for _ in range(4)] == [a, b, c, None]
    assert queue.end("v0") == (a, 0) and queue.end("v0") is None
    assert list(queue.left) == ["v1", "v2"]


def test_only_the_video_that_was_alone_is_blamed() -> None:
    queue, (a, b, c) = queue_of(3)
    for _ in range(2):
        assert [queue.take(alone=False), queue.take(alone=False)] == [a, b]
        assert queue.give_back([a, b]) == []
    assert queue.is_suspect("v0") and queue.is_suspect("v1") and not queue.is_suspect("v2")
    assert queue.take(alone=False) == c, "suspects come last"
    assert queue.take(alone=False) is None, "and not to a worker that has another video"
    suspect = queue.take(alone=True)
    assert suspect in (a, b)
    assert queue.give_back([suspect]) == [suspect]
    assert queue.take(alone=True) in (a, b)
