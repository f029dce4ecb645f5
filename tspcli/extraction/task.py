"""What every worker of a run receives, what it reports, and the queue that the videos wait in."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tspcli.core.progress import Reporter
from tspcli.errors import StoreError, TspError, UsageError
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig
from tspcli.extraction.row_writer import PoolingSink, VideoWriter, WriterThread
from tspcli.extraction.run_report import VIDEOS, ExtractReport, RunFigures, VideoResult
from tspcli.extraction.shard_plan import file_size
from tspcli.sampling import Sampling
from tspcli.store.gvf import Pool
from tspcli.store.parts import PartsFolder
from tspcli.store.schema import StoreMetadata
from tspcli.video import VideoFile

_VISIBLE_S = 20.0
MAX_VIDEO_LOSSES = 3
"""After so many workers were lost over a video it is given up."""


@dataclass(frozen=True)
class Task:
    """One run as every worker has to know it.

    Attributes:
        out: The store. Its parts lie in a folder beside it, which all workers see.
        metadata: What the store says of itself.
        sampling: How videos are cut into clips.
        config: The user's choices.
        encoder: What is known of the encoder.
        pool: How the rows of a video become one, or None to keep them.
    """

    out: Path
    metadata: StoreMetadata
    sampling: Sampling
    config: ExtractConfig
    encoder: EncoderInfo
    pool: Pool | None = None

    def parts(self) -> PartsFolder:
        """The folder of finished videos."""
        return PartsFolder(self.out, self.metadata)

    def open_sink(self, writer: WriterThread, file: VideoFile) -> VideoWriter | PoolingSink:
        """Where the rows of a video go."""
        rows = writer.video(file.key, self.encoder.feature_dim)
        return rows if self.pool is None else PoolingSink(rows, self.pool)


@dataclass(frozen=True)
class Place:
    """Room for one worker.

    Attributes:
        name: The place in words, unlike every other's.
        device: The torch device that its encoder computes on.
        n_cpus: Cores that it may use, for decoding and for encoding on a CPU.
        n_decoders: Decode processes.
        node: Ray's id of the node, on a cluster.
    """

    name: str
    device: str
    n_cpus: int
    n_decoders: int
    node: str = ""


@dataclass
class RunLog:
    """Where a run's outcome is collected and shown. Used from the run's main thread only."""

    report: ExtractReport
    reporter: Reporter
    figures: RunFigures = field(default_factory=RunFigures)

    def end_video(self, result: VideoResult, source_bytes: int) -> None:
        """Record a video that has ended for good."""
        self.report.videos.append(result)
        self.figures.count_end(result, source_bytes)
        self.reporter.result(result)
        self.show()

    def show(self) -> None:
        """Report the figures as they stand."""
        self.reporter.advance(VIDEOS, self.figures.n_ended, self.figures)

    def note(self, text: str) -> None:
        """Show and keep something that happened to the run rather than to one video."""
        self.report.notes.append(text)
        self.reporter.message(text)


class Runner(Protocol):
    """How the videos of a run are done: in this process, or by workers on devices or a cluster.

    A runner commits every finished video to the parts folder and reports it to the log; it writes
    no store. What it has committed when it raises is kept, and the next run resumes from there.

    Attributes:
        is_parallel: Whether several encoders do the videos, so that a long video begun last may
            keep the others waiting.
    """

    is_parallel: bool

    def start(self, log: RunLog) -> EncoderInfo:
        """Load the encoder, or several that have to be alike.

        Raises:
            TspError: If none can be loaded.
        """

    def run(self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, log: RunLog) -> None:
        """Do the videos, in this order.

        Args:
            task: The run.
            videos: At least one.
            parts: Opened by the caller; every finished video is added to it.
            log: Receives every video that ends, and the run's figures.
        """

    def close(self) -> None:
        """Release everything; harmless if called again."""


@dataclass(frozen=True)
class Begin:
    """To a worker that has loaded its encoder: begin a run."""

    task: Task


@dataclass(frozen=True)
class Encode:
    """To a worker that has begun: do a video.

    Attributes:
        file: The video, by its absolute path.
        source_bytes: Size of its file as the supervisor sees it.
    """

    file: VideoFile
    source_bytes: int


@dataclass(frozen=True)
class Drain:
    """To a worker that has begun: finish the videos under way, begin no other, and end."""


@dataclass(frozen=True)
class Close:
    """To a worker: commit what is complete, drop the rest, and end."""


Request = Begin | Encode | Drain | Close


@dataclass
class Update:
    """What a worker has to report since its last update; an empty one is a sign of life.

    Attributes:
        version: The program's version there; with the first update after the encoder was loaded.
        encoder: What is known of its encoder; with the same update.
        begun: Whether it has begun the run.
        results: Videos that have ended.
        figures: Its figures so far, if they changed.
        messages: Lines worth showing.
        notes: What happened to it rather than to one video.
        error: An error of the run, which has to end.
        fault: Why this worker is of no more use, though another may be.
        ended: Whether it has ended: whatever it had is committed or dropped.
    """

    version: str | None = None
    encoder: EncoderInfo | None = None
    begun: bool = False
    results: list[VideoResult] = field(default_factory=list)
    figures: RunFigures | None = None
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: TspError | None = None
    fault: str | None = None
    ended: bool = False


class VideoQueue:
    """The videos of a run that have not ended: those that wait, and what was lost over each.

    Args:
        videos: In the order in which they are handed out.

    Attributes:
        left: Those that have not ended, by key.
        sizes: Bytes of each one's file, by key.
    """

    def __init__(self, videos: Sequence[VideoFile]) -> None:
        self.left = {video.key: video for video in videos}
        self.sizes = {video.key: file_size(video.path) for video in videos}
        self._waiting = deque(videos)
        self._suspects: deque[VideoFile] = deque()
        self._losses: Counter[str] = Counter()

    def take(self, *, alone: bool) -> VideoFile | None:
        """The next video, or None if there is none for this worker now.

        A video that two workers were lost over comes last, and to a worker that has no other: if
        that one is lost too, the video was the cause.

        Args:
            alone: Whether the worker has no other video.
        """
        if self._waiting:
            return self._waiting.popleft()
        return self._suspects.popleft() if alone and self._suspects else None

    def is_suspect(self, key: str) -> bool:
        """Whether a video has to be done alone."""
        return self._losses[key] >= MAX_VIDEO_LOSSES - 1

    def give_back(self, videos: Sequence[VideoFile]) -> list[VideoFile]:
        """Put back, in front, what was under way at a worker that was lost.

        Returns:
            Those that enough workers were lost over, which are not put back.
        """
        given_up = []
        for video in reversed(videos):
            self._losses[video.key] += 1
            if self._losses[video.key] >= MAX_VIDEO_LOSSES:
                given_up.append(video)
            elif self.is_suspect(video.key):
                self._suspects.append(video)
            else:
                self._waiting.appendleft(video)
        return given_up

    def end(self, key: str) -> tuple[VideoFile, int] | None:
        """Count a video as ended; the video and its bytes, or None if it had ended already."""
        video = self.left.pop(key, None)
        return None if video is None else (video, self.sizes[key])


def require_alike(encoders: Mapping[str, EncoderInfo]) -> None:
    """Refuse encoders that would not give the same rows.

    Args:
        encoders: What is known of each, by the name of its place.

    Raises:
        UsageError: Naming two that differ and in what.
    """
    first: tuple[str, StoreMetadata] | None = None
    for name, info in encoders.items():
        metadata = StoreMetadata.build(sampling=info.sampling, encoder=info.provenance)
        if first is None:
            first = name, metadata
        elif differences := metadata.differences(first[1]):
            raise UsageError(
                f"The encoders on {first[0]} and {name} differ: " + "; ".join(differences) + ".",
                remedy="Set --precision, or use devices and weights that are alike.",
                places=(first[0], name),
            )


def take_part(parts: PartsFolder, key: str) -> None:
    """Count a part that a worker has committed; a network file system may show it late.

    Raises:
        StoreError: If it does not appear.
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
