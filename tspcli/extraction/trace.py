"""What each part of a run did when, for the usual trace viewers.

The format is Chrome's trace events, which Perfetto and chrome://tracing open: one row a thread of
this process and one a decode process, on one clock.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tspcli.features.atomic import write_aside
from tspcli.video import Frames

_DECODING = "decode processes"


class Trace:
    """Collects spans; every method may be called from any thread.

    Args:
        path: The file that :meth:`write` makes, or None to collect nothing.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._pid = os.getpid()
        self._start_s = time.monotonic()
        self._events: list[dict[str, Any]] = []
        self._rows: dict[tuple[int, int], str] = {}

    @contextmanager
    def span(self, name: str, **details: Any) -> Iterator[None]:
        """Something that this thread does while the context is open."""
        if self.path is None:
            yield
            return
        began_s = time.monotonic()
        try:
            yield
        finally:
            thread = threading.get_native_id()
            self._rows.setdefault((self._pid, thread), threading.current_thread().name)
            self._add(name, self._pid, thread, began_s, time.monotonic(), details)

    def decoded(self, frames: Frames) -> None:
        """A decode process has made some frames."""
        if self.path is None or frames.worked is None:
            return
        process, began_s, ended_s = frames.worked
        self._rows.setdefault((0, process), f"decode {process}")
        details = {"video": frames.job.key, "frames": len(frames.ticks)}
        self._add("decode and scale", 0, process, began_s, ended_s, details)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        names: list[dict[str, Any]] = [
            _name("process_name", self._pid, 0, "tsp"),
            _name("process_name", 0, 0, _DECODING),
        ]
        names += [_name("thread_name", *row, name) for row, name in self._rows.items()]
        with write_aside(self.path) as aside:
            aside.write_text(json.dumps({"traceEvents": names + self._events}) + "\n")

    def _add(
        self,
        name: str,
        process: int,
        thread: int,
        began_s: float,
        ended_s: float,
        details: dict[str, Any],
    ) -> None:
        self._events.append(
            {
                "name": name,
                "ph": "X",
                "ts": round((began_s - self._start_s) * 1e6),
                "dur": round((ended_s - began_s) * 1e6),
                "pid": process,
                "tid": thread,
                "args": details,
            }
        )


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
