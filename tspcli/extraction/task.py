"""What the processes of one run have to agree on, and where they tell how it goes.

The videos of a Ray run: those that wait, and those that nodes have committed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tspcli.core.progress import Reporter
from tspcli.errors import StoreError, UsageError
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.row_writer import PoolingSink, VideoWriter, WriterThread
from tspcli.extraction.run_report import VIDEOS, ExtractReport, RunFigures, VideoResult
from tspcli.extraction.shard_plan import file_size
from tspcli.sampling import Sampling
from tspcli.store.gvf import Pool
from tspcli.store.parts import PartsFolder
from tspcli.store.schema import StoreMetadata
from tspcli.video import VideoFile


@dataclass(frozen=True)
class Task:
    """One run as every process of it has to know it.

    Attributes:
        out: The store. Its parts lie in the folder beside it, which all processes see.
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
    encoder: EncoderFacts
    pool: Pool | None = None

    def parts(self) -> PartsFolder:
        """The folder of finished videos."""
        return PartsFolder(self.out, self.metadata)

    def open_sink(self, writer: WriterThread, file: VideoFile) -> VideoWriter | PoolingSink:
        """Where a video's rows go."""
        rows = writer.video(file.key, self.encoder.feature_dim)
        return rows if self.pool is None else PoolingSink(rows, self.pool)


@dataclass
class Board:
    """Where a run's outcome is collected and shown. Used from the run's main thread alone."""

    report: ExtractReport
    reporter: Reporter
    progress: RunFigures = field(default_factory=RunFigures)

    def end(self, result: VideoResult, source_bytes: int) -> None:
        """A video has ended for good."""
        self.report.videos.append(result)
        self.progress.count_end(result, source_bytes)
        self.reporter.result(result)
        self.show()

    def show(self) -> None:
        """Report the figures as they stand."""
        self.reporter.advance(VIDEOS, self.progress.n_ended, self.progress)

    def note(self, text: str) -> None:
        """Something that happened to the run as a whole, to be shown and kept."""
        self.report.notes.append(text)
        self.reporter.message(text)


class Runner(Protocol):
    """How the videos of a run are done: in this process, in several, on a cluster.

    A runner commits every finished video to the parts folder and tells the board; it writes no
    store. What it has committed when it raises is kept, and the next run goes on from there.

    Attributes:
        shares_out: Whether several encoders do the videos, so that one begun last may keep the
            others waiting.
    """

    shares_out: bool

    def start(self, reporter: Reporter) -> EncoderFacts:
        """Load the encoder, or as many as there will be, which have to be alike.

        Args:
            reporter: Is told when that takes long.
        """

    def run(
        self, task: Task, videos: Sequence[VideoFile], parts: PartsFolder, board: Board
    ) -> None:
        """Do the videos, in this order.

        Args:
            task: The run.
            videos: At least one.
            parts: Opened by the caller; every finished video is added to it.
            board: Is told of every video that ends, and of the run's progress.
        """

    def close(self) -> None:
        """Let go of everything; harmless if called again."""


def require_alike(encoders: Mapping[str, EncoderFacts]) -> None:
    """Refuse encoders that would not give the same rows.

    Args:
        encoders: The facts of each, by a name for the message.

    Raises:
        UsageError: Naming two that differ and in what.
    """
    first: tuple[str, StoreMetadata] | None = None
    for name, facts in encoders.items():
        metadata = StoreMetadata.build(sampling=facts.sampling, encoder=facts.provenance)
        if first is None:
            first = name, metadata
        elif differences := metadata.differences(first[1]):
            raise UsageError(
                f"The encoders on {first[0]} and {name} differ: " + "; ".join(differences) + ".",
                remedy="Give --precision, or devices and weights that are alike.",
            )


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
