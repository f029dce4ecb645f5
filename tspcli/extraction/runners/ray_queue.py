"""The videos of a Ray run: those that wait, and those that nodes have committed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from tspcli.errors import StoreError
from tspcli.extraction.plan import file_size
from tspcli.features.parts import PartsFolder
from tspcli.video import VideoFile

_VISIBLE_S = 20.0


class VideoQueue:
    """The videos of a run.

    Attributes:
        waiting: Those to be handed out, in the order given.
        left: Keys of those that have not ended.
        sizes: Bytes of each one's file.
    """

    def __init__(self, videos: Sequence[VideoFile]) -> None:
        self.waiting = deque(videos)
        self.left = {video.key for video in videos}
        self.sizes = {video.key: file_size(video.path) for video in videos}


def take_part(parts: PartsFolder, key: str) -> None:
    """Count a part that a node has committed; a network file system may show it late.

    Raises:
        StoreError: If it does not come.
    """
    deadline = time.monotonic() + _VISIBLE_S
    while True:
        try:
            parts.take(key)
            return
        except StoreError:
            if time.monotonic() > deadline:
                raise
        # Reading the folder makes such a file system look again.
        for _ in parts.folder.iterdir():
            break
        time.sleep(0.2)
