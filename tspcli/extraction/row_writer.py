"""Rows and commits, written on a thread of their own so that the encoder waits for no disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tspcli.store.gvf import Pool, RunningPool
from tspcli.store.parts import PartsFolder, PartWriter
from tspcli.store.store_writer import is_key

_QUEUED_WRITES = 64


class RowSink(Protocol):
    """Where the rows of one video go."""

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows, shape (n, D)."""

    def commit(self, attributes: Mapping[str, Any], done: Callable[[], None]) -> None:
        """Commit the video, whose rows are complete; call ``done`` once they are on disk."""

    def abort(self) -> None:
        """Drop the rows given so far."""


class VideoWriter:
    """Writes one video's part; calls return at once, unless too many writes are queued."""

    def __init__(self, thread: WriterThread, key: str, dim: int) -> None:
        assert is_key(key)
        self._thread = thread
        self._key = key
        self._dim = dim
        self._part: PartWriter | None = None
        self.n_rows = 0

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows of shape (n, dim)."""
        self.n_rows += len(rows)
        self._thread.submit(lambda: self._open().append(rows))

    def commit(self, attributes: Mapping[str, Any], done: Callable[[], None]) -> None:
        """Commit the part, then call ``done`` on the writer's thread."""

        def work() -> None:
            self._thread.parts.add(self._open().commit(attributes))
            self._part = None
            done()

        self._thread.submit(work)

    def abort(self) -> None:
        """Drop the video's rows."""

        def work() -> None:
            if self._part is not None:
                self._part.abort()
                self._part = None

        self._thread.submit(work)

    def _open(self) -> PartWriter:
        if self._part is None:
            self._part = self._thread.parts.writer(self._key, self._dim)
        return self._part


class PoolingSink:
    """Pools the rows of a video into the one that is written."""

    def __init__(self, writer: VideoWriter, pool: Pool) -> None:
        self._writer = writer
        self._running = RunningPool(pool)

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows, shape (n, D)."""
        self._running.add(rows)

    def commit(self, attributes: Mapping[str, Any], done: Callable[[], None]) -> None:
        """Write the pooled row and commit it."""
        self._writer.append(self._running.result()[None])
        known = {k: v for k, v in attributes.items() if k not in ("row_start_s", "row_end_s")}
        self._writer.commit({**known, "pooled_rows": self._running.n_rows}, done)

    def abort(self) -> None:
        """Drop the rows given so far."""
        self._writer.abort()


class WriterThread:
    """Does one write after another; the first error is raised at the next call."""

    def __init__(self, parts: PartsFolder) -> None:
        self.parts = parts
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUED_WRITES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tspcli-writer", daemon=True)
        self._thread.start()

    def video(self, key: str, dim: int) -> VideoWriter:
        """A writer for one video."""
        return VideoWriter(self, key, dim)

    def submit(self, work: Callable[[], None]) -> None:
        """Queue a piece of work; wait while too many are queued.

        Raises:
            StoreError: If an earlier piece could not be written.
        """
        self.raise_error()
        self._queue.put(work)

    def raise_error(self) -> None:
        """Raise the error of an earlier write, if there was one."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> WriterThread:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Whatever ended the run, what was handed over is written.
        self._queue.put(None)
        self._thread.join()
        if exc_type is None:
            self.raise_error()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:  # whatever it is ends the run, at its next call
                    self._error = error
