"""What became of every video of a run, the run's figures, and a trace of what each part did when.

The trace is in Chrome's trace event format, which Perfetto and chrome://tracing open: one row per
thread of this process and per decode process, on one clock.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tspcli.core.files import replacing
from tspcli.core.run_dir import report_path
from tspcli.core.text import clock, storable
from tspcli.core.version import __version__
from tspcli.errors import VIDEO_REMEDIES, VideoError
from tspcli.video import Frames, VideoFile

VIDEOS = "videos"
"""The one task that an extraction reports, with :class:`RunFigures` and :class:`VideoResult`."""
Status = Literal["done", "kept", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("done", "kept", "skipped", "failed")

_STARVING = 0.1
"""The share of its time that an encoder may wait for frames and still be the bottleneck itself."""
_DECODING = "decode processes"


@dataclass(frozen=True)
class VideoResult:
    """How one video ended.

    Attributes:
        key: Its name in the store.
        path: Its file.
        status: ``done`` now, ``kept`` from an earlier run, ``skipped`` on request, or ``failed``.
        n_rows: Rows in the store.
        duration_s: Seconds of video that the rows were computed from, if known.
        decoder: The decoder that read it.
        warnings: What was unusual about it.
        reason: Why it has no features: a key of :data:`tspcli.errors.VIDEO_REASONS`.
        detail: The reason in words.
        remedy: What to do about it.
    """

    key: str
    path: str
    status: Status
    n_rows: int = 0
    duration_s: float | None = None
    decoder: str | None = None
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    detail: str | None = None
    remedy: str | None = None

    @classmethod
    def without_features(
        cls, file: VideoFile, error: VideoError, status: Status = "failed"
    ) -> VideoResult:
        """The result of a video that has no rows, with its reason."""
        return cls(
            file.key,
            str(file.path),
            status,
            reason=error.reason,
            detail=error.detail,
            remedy=error.remedy or VIDEO_REMEDIES[error.reason],
        )

    def line(self) -> str:
        """Why the video has no features; empty for one that has."""
        if self.status in ("done", "kept"):
            return ""
        return f"{self.status}: {self.path or self.key}: {self.reason}: {self.detail or ''}"


@dataclass
class RunFigures:
    """A run's figures so far.

    Attributes:
        n_videos: Videos of this run, without those kept from an earlier one.
        n_ended: Videos done, skipped or failed.
        n_failed: Videos failed.
        n_clips: Clips encoded.
        video_s: Seconds of video encoded.
        total_bytes: Size of all files of this run.
        ended_bytes: Size of the files of ended videos.
        begun_bytes: How much is encoded of the files under way, by the durations in their headers.
        elapsed_s: Seconds since the first video was opened.
        decode_wait_s: Seconds that the encoder waited for frames, from its first batch on.
        encode_s: Seconds that the encoder worked.
    """

    n_videos: int = 0
    n_ended: int = 0
    n_failed: int = 0
    n_clips: int = 0
    video_s: float = 0.0
    total_bytes: int = 0
    ended_bytes: int = 0
    begun_bytes: float = 0.0
    elapsed_s: float = 0.0
    decode_wait_s: float = 0.0
    encode_s: float = 0.0

    def count_end(self, result: VideoResult, source_bytes: int) -> None:
        """Count a video that has ended, whose file has ``source_bytes`` bytes."""
        self.n_ended += 1
        self.n_failed += result.status == "failed"
        self.ended_bytes += source_bytes

    def copy_to(self, report: ExtractReport) -> None:
        """Keep the run's figures in its report."""
        report.n_clips = self.n_clips
        report.video_s = self.video_s
        report.elapsed_s = self.elapsed_s
        report.decode_wait_s = self.decode_wait_s
        report.encode_s = self.encode_s

    def of_the_lost(self, ended_s: float) -> RunFigures:
        """What counts of a lost worker's figures, as others do what was under way there.

        Args:
            ended_s: Seconds of the videos that it had finished.
        """
        return replace(self, video_s=ended_s, begun_bytes=0.0)

    @property
    def bottleneck(self) -> str:
        """``decoding`` or ``encoding``, whichever the run waits for."""
        return bottleneck(self.decode_wait_s, self.encode_s)

    @property
    def left_s(self) -> float | None:
        """Seconds left, by the size of the files; None before anything is done."""
        done = min(self.ended_bytes + self.begun_bytes, self.total_bytes)
        if not done or not self.elapsed_s:
            return None
        return self.elapsed_s * (self.total_bytes - done) / done

    def line(self) -> str:
        """Clips per second, speed against real time, the bottleneck and the time left."""
        elapsed_s = self.elapsed_s or 1e-9
        left = "" if self.left_s is None else f", {clock(self.left_s)} left"
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"{self.n_clips / elapsed_s:.1f} clips/s, {self.video_s / elapsed_s:.1f} s of video/s, "
            f"limited by {self.bottleneck}{left}{failed}"
        )


@dataclass
class ExtractReport:
    """The outcome of a run.

    Attributes:
        out: The store.
        settings: What the rows depend on.
        videos: One result per video, in the order of their keys.
        n_clips: Clips encoded in this run.
        video_s: Seconds of video encoded in this run.
        wall_s: Wall time of this run, from the list of videos to the finished store.
        elapsed_s: Wall time from when the encoder was loaded to the last row.
        decode_wait_s: Time that the encoder waited for frames, from its first batch on.
        encode_s: Time that the encoder worked.
        notes: What happened to the run rather than to one video, such as a batch that was halved.
        shard: For a shard: which one it is, and the plan that all shards share.
        skipped_files: How many files in the folders are not videos, by suffix.
        runtime: The runtime that ran the encoder.
    """

    out: str
    settings: Mapping[str, Any]
    videos: list[VideoResult] = field(default_factory=list)
    n_clips: int = 0
    video_s: float = 0.0
    wall_s: float = 0.0
    elapsed_s: float = 0.0
    decode_wait_s: float = 0.0
    encode_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    shard: Mapping[str, Any] | None = None
    skipped_files: Mapping[str, int] = field(default_factory=dict)
    runtime: str = "torch"

    def with_status(self, status: Status) -> list[VideoResult]:
        """The videos that ended in ``status``."""
        return [video for video in self.videos if video.status == status]

    @property
    def failed(self) -> list[VideoResult]:
        """The videos that should have features and have none."""
        return self.with_status("failed")

    @property
    def remedies(self) -> list[tuple[str, str, int]]:
        """(reason, what to do about it, how many videos failed so), each once."""
        counts = Counter((v.reason or "", v.remedy) for v in self.failed if v.remedy)
        return [(reason, remedy or "", count) for (reason, remedy), count in counts.items()]

    @property
    def bottleneck(self) -> Literal["decoding", "encoding"]:
        """What limited the run."""
        return bottleneck(self.decode_wait_s, self.encode_s)

    @property
    def path(self) -> Path:
        """Where :meth:`write` puts the report: beside the store."""
        return report_path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; bytes of names that are not UTF-8 are escaped."""
        counts = Counter(video.status for video in self.videos)
        values = {
            "tool_version": __version__,
            "out": self.out,
            "settings": self.settings,
            "runtime": self.runtime,
            **({} if self.shard is None else {"shard": self.shard}),
            "counts": {status: counts[status] for status in STATUSES},
            "clips": self.n_clips,
            "video_s": round(self.video_s, 3),
            "wall_s": round(self.wall_s, 3),
            "elapsed_s": round(self.elapsed_s, 3),
            "decode_wait_s": round(self.decode_wait_s, 3),
            "encode_s": round(self.encode_s, 3),
            "bottleneck": self.bottleneck if self.n_clips else None,
            "notes": self.notes,
            "skipped_files": dict(self.skipped_files),
            "videos": [asdict(video) for video in self.videos],
        }
        return {name: _valid(value) for name, value in values.items()}

    def write(self) -> None:
        """Write the report as JSON, completely or not at all."""
        with replacing(self.path) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=True) + "\n")


def _valid(value: Any) -> Any:
    """A value without lone surrogates, which JSON readers need not accept."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_valid(name): _valid(item) for name, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list | tuple) else value


def bottleneck(decode_wait_s: float, encode_s: float) -> Literal["decoding", "encoding"]:
    """``encoding`` if a faster encoder would speed up the run, ``decoding`` if more decoders would.

    An encoder that waits for more than a tenth of its time is limited by decoding.

    Args:
        decode_wait_s: Seconds that the encoder waited for frames, once it had begun.
        encode_s: Seconds that it worked.
    """
    waited = decode_wait_s / (decode_wait_s + encode_s) if encode_s else 1.0
    return "decoding" if waited > _STARVING else "encoding"


class Trace:
    """Records spans of work; every method may be called from any thread.

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
        """Record what this thread does while the context is open."""
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
        """Record when a decode process made some frames."""
        if self.path is None or frames.span is None:
            return
        process, began_s, ended_s = frames.span
        self._rows.setdefault((0, process), f"decode {process}")
        details = {"video": frames.job.key, "frames": len(frames.ticks)}
        self._add("decode and scale", 0, process, began_s, ended_s, details)

    def write(self) -> None:
        """Write the file, completely or not at all."""
        if self.path is None:
            return
        names: list[dict[str, Any]] = [
            _name("process_name", self._pid, 0, "tsp"),
            _name("process_name", 0, 0, _DECODING),
        ]
        names += [_name("thread_name", *row, name) for row, name in self._rows.items()]
        with replacing(self.path) as aside:
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
