"""What became of every video of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tspcli import __version__
from tspcli.errors import VIDEO_REMEDIES, VideoError
from tspcli.features.atomic import write_aside
from tspcli.features.reports import report_path
from tspcli.video import VideoFile
from tspcli.wording import storable

Status = Literal["done", "kept", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("done", "kept", "skipped", "failed")


@dataclass(frozen=True)
class VideoResult:
    """How one video ended.

    Attributes:
        key: Its name in the store.
        path: Its file.
        status: ``done`` now, ``kept`` from an earlier run, ``skipped`` on request, or ``failed``.
        n_rows: Rows in the store.
        duration_s: Seconds of video that the rows were made from, if known.
        decoder: The decoder that read it.
        warnings: What was out of the ordinary.
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
        """The end of a video that has no rows, and why."""
        return cls(
            file.key,
            str(file.path),
            status,
            reason=error.reason,
            detail=error.detail,
            remedy=error.remedy or VIDEO_REMEDIES[error.reason],
        )


_STARVING = 0.1
"""So much of its time an encoder that is the limit itself may wait for frames."""


def bottleneck(decode_wait_s: float, encode_s: float) -> Literal["decoding", "encoding"]:
    """What another encoder or more decoders would make faster.

    An encoder that waits for more than a tenth of its time encodes no faster than frames come.

    Args:
        decode_wait_s: Seconds in which the encoder waited for frames, once it had begun.
        encode_s: Seconds in which it worked.
    """
    waited = decode_wait_s / (decode_wait_s + encode_s) if encode_s else 1.0
    return "decoding" if waited > _STARVING else "encoding"


@dataclass
class ExtractReport:
    """The outcome of a run.

    Attributes:
        out: The store.
        settings: What the rows depend on.
        videos: One result a video, in the order of their keys.
        n_clips: Clips encoded in this run.
        video_s: Seconds of video encoded in this run.
        wall_s: Wall time of this run, from the list of videos to the finished store.
        elapsed_s: Wall time from when the encoder was loaded to the last row.
        decode_wait_s: Time in which the encoder had to wait for frames, from its first batch on.
        encode_s: Time in which the encoder worked.
        notes: What happened to the run as a whole, such as a batch halved for lack of memory.
        shard: Of a shard: which one it is, and the plan that all shards share.
        passed_over: How many files of folders were no videos, by ending.
        runtime: What ran the encoder.
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
    passed_over: Mapping[str, int] = field(default_factory=dict)
    runtime: str = "torch"

    def with_status(self, status: Status) -> list[VideoResult]:
        """The videos that ended in ``status``."""
        return [video for video in self.videos if video.status == status]

    @property
    def failed(self) -> list[VideoResult]:
        """The videos that have no features although they should."""
        return self.with_status("failed")

    @property
    def remedies(self) -> list[tuple[str, str, int]]:
        """(reason, what to do about it, how many videos failed so), each once."""
        counts = Counter((v.reason or "", v.remedy) for v in self.failed if v.remedy)
        return [(reason, remedy or "", count) for (reason, remedy), count in counts.items()]

    @property
    def bottleneck(self) -> Literal["decoding", "encoding"]:
        """What the run waited for."""
        return bottleneck(self.decode_wait_s, self.encode_s)

    @property
    def path(self) -> Path:
        """Where :meth:`write` puts the report: beside the store."""
        return report_path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; bytes of names that are no UTF-8 as escapes."""
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
            "passed_over": dict(self.passed_over),
            "videos": [asdict(video) for video in self.videos],
        }
        return {name: _valid(value) for name, value in values.items()}

    def write(self) -> None:
        """Write the report as JSON, whole or not at all."""
        with write_aside(self.path) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=True) + "\n")


def _valid(value: Any) -> Any:
    """A value without halves of surrogate pairs, which no JSON reader has to take."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_valid(name): _valid(item) for name, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list | tuple) else value
