"""Frames decoded on request, in processes whose hang or crash costs that request alone."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

from tspcli.core.child_process import ChildProcess
from tspcli.errors import VideoError
from tspcli.viewer.frame_worker import Shown, Wanted

PATIENCE_S = 20.0
"""How long a frame may take, a far seek in a long video included."""
_WORKERS = 2


class FrameServer:
    """Decodes frames in a few processes, which are started when they are first needed.

    Attributes:
        patience_s: How long a frame may take.
    """

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        """Start nothing yet.

        Args:
            patience_s: How long a frame may take.
        """
        self.patience_s = patience_s
        self._idle: queue.LifoQueue[ChildProcess | None] = queue.LifoQueue()
        for _ in range(_WORKERS):
            self._idle.put(None)

    def frame(self, path: Path, time_s: float, height: int) -> Shown:
        """The frame that a video shows at a time.

        Args:
            path: The video.
            time_s: Seconds after its first frame.
            height: The most lines of the picture.

        Raises:
            VideoError: If it cannot be decoded, or its decoder hangs or crashes.
        """
        try:
            worker = self._idle.get(timeout=self.patience_s)
        except queue.Empty:
            raise VideoError("timeout", "other frames are still being decoded", path=path) from None
        try:
            worker = worker or ChildProcess("tspcli.viewer.frame_worker")
            answer = self._ask(worker, Wanted(str(path), time_s, height), path)
        except BaseException:
            if worker is not None:
                worker.dispose()
            self._idle.put(None)
            raise
        self._idle.put(worker)
        if len(answer) != len(Shown._fields):
            reason, detail = answer
            raise VideoError(reason, detail, path=path)
        return Shown(*answer)

    def _ask(self, worker: ChildProcess, wanted: Wanted, path: Path) -> tuple[Any, ...]:
        try:
            worker.connection.send(tuple(wanted))
            if not worker.connection.poll(self.patience_s):
                raise VideoError(
                    "timeout", f"no frame came within {self.patience_s:g} s", path=path
                )
            answer: tuple[Any, ...] = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise VideoError("crashed", f"the decoder {worker.last_words()}", path=path) from error
        return answer

    @property
    def pids(self) -> list[int]:
        """The processes that wait for work."""
        return [worker.pid for worker in self._idle.queue if worker is not None]

    def close(self) -> None:
        """End the processes."""
        for _ in range(_WORKERS):
            worker = self._idle.get()
            if worker is not None:
                worker.dispose()
