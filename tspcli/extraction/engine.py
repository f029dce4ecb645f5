"""The engine: decode processes in front, one encoder that is never idle, rows handed to a sink.

Three threads share the work. The feeder (:mod:`tspcli.extraction.feeder`) takes frames out of the
decode workers' shared memory, brings them to the encoder's device and normalises them, once each.
The main thread cuts clips and encodes them in batches (:mod:`tspcli.extraction.batch_encoder`).
The sink (:mod:`tspcli.extraction.row_writer`) writes on a third. Every queue between them is
bounded, so memory does not depend on how long a video is. Here is what becomes of each video.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tspcli.core.progress import Reporter
from tspcli.core.stop import GentleStop
from tspcli.core.text import storable
from tspcli.encoders import Encoder
from tspcli.errors import StoreError, TspError, VideoError
from tspcli.extraction.batch_encoder import BatchEncoder
from tspcli.extraction.clip_assembler import Batch, ClipAssembler, Clips
from tspcli.extraction.extract_config import EncoderFacts, ExtractConfig
from tspcli.extraction.feeder import EventSource, Prepared, Word, feed, open_pool
from tspcli.extraction.row_writer import RowSink
from tspcli.extraction.run_report import VIDEOS, ExtractReport, RunFigures, Trace, VideoResult
from tspcli.extraction.shard_plan import file_size
from tspcli.sampling import Sampling
from tspcli.store.schema import sampling_attributes
from tspcli.video import Failed, Finished, Idle, Opened, Restarted, VideoFile, VideoInfo, Woken
from tspcli.video.source import file_stamp


@dataclass(eq=False)
class _Video:
    """A video under way."""

    file: VideoFile
    sink: RowSink
    assembler: ClipAssembler
    info: VideoInfo
    stamp: tuple[int, int] | None
    n_rows: int = 0
    encoded_s: float = 0.0
    end: Finished | None = None
    dropped: bool = False

    @property
    def source_bytes(self) -> int:
        """Size of the file when it was opened."""
        return self.stamp[0] if self.stamp else 0

    @property
    def begun_bytes(self) -> float:
        """What of the file is encoded, as far as its header tells how long it is."""
        if not self.info.duration_s:
            return 0.0
        return self.source_bytes * min(1.0, self.encoded_s / float(self.info.duration_s))


@dataclass
class Engine:
    """One run over a list of videos.

    Attributes:
        encoder: What turns clips into rows.
        sampling: How videos are cut into clips.
        config: The user's choices.
        open_sink: Makes the sink of a video's rows; called again if its decoding starts afresh.
        report: Where the outcome is collected.
        reporter: Who watches.
    """

    encoder: Encoder
    sampling: Sampling
    config: ExtractConfig
    open_sink: Callable[[VideoFile], RowSink]
    report: ExtractReport
    reporter: Reporter = field(default_factory=Reporter)
    progress: RunFigures = field(default_factory=RunFigures)

    def __post_init__(self) -> None:
        self._videos: dict[str, _Video] = {}
        self._trace = Trace(self.config.profile)
        self._encoding: BatchEncoder[_Video] = BatchEncoder(
            self.encoder,
            self.sampling,
            self.config.batch_size,
            hand_out=self._hand_out,
            note=self._note,
            progress=self.progress,
            trace=self._trace,
        )
        self._wake: Callable[[], None] = lambda: None
        self._results: queue.SimpleQueue[VideoResult] = queue.SimpleQueue()
        self._stop = GentleStop(self.reporter)

    def run(self, videos: Sequence[VideoFile]) -> None:
        """Encode the videos in this order; returns once every row was handed to its sink."""
        facts = EncoderFacts.of(self.encoder)
        devices = [str(self.encoder.device)]
        self.consume(open_pool(videos, facts, self.sampling, self.config, devices=devices))

    def consume(self, source: EventSource) -> None:
        """Encode what comes from a source until it ends; it is closed then."""
        started = time.monotonic()
        self._wake = source.wake
        try:
            items = feed(source, self.encoder, self._note_wait, self._trace)
            keeping = self._encoding.kept_memory()
            with keeping, closing(source), closing(items), torch.inference_mode():
                for item in items:
                    if self._stop.begins():
                        source.drain()
                    if item is None:
                        continue
                    self.progress.elapsed_s = time.monotonic() - started
                    self._handle(item)
                self._encoding.flush()
            self._stop.conclude()
        finally:
            for video in self._videos.values():
                with suppress(TspError):
                    video.sink.abort()
            self.progress.elapsed_s = time.monotonic() - started
            self.progress.copy_to(self.report)
            try:
                self._trace.write()
            except StoreError as error:
                # Nobody loses features over it.
                self._note(f"There is no trace: {error}")

    def _handle(self, item: Word) -> None:
        if isinstance(item, (Idle, Woken)):
            if isinstance(item, Idle):
                # Nothing comes that could fill the batch.
                self._encoding.flush()
            self.flush_results()
            return
        event = item.event if isinstance(item, Prepared) else item
        file = event.job
        if isinstance(item, Opened):
            self._begin(item)
        elif isinstance(item, Prepared):
            video, frames = self._videos[file.key], item.frames.receive()
            self._collect(video, video.assembler.add(frames, item.event.ticks, self._encoding.room))
        elif isinstance(item, Restarted):
            self._drop(file.key)
            self.reporter.message(f"{file.path}: {item.why}; trying {item.decoder}.")
        elif isinstance(item, Failed):
            self._drop(file.key)
            self._fail(file, item.error)
        else:
            self._finish(self._videos[file.key], item)
        self.flush_results()

    def _begin(self, opened: Opened) -> None:
        file = opened.job
        self._drop(file.key)
        assembler = ClipAssembler(self.sampling, as_series=self._encoding.as_series)
        self._videos[file.key] = _Video(
            file, self.open_sink(file), assembler, opened.info, opened.stamp
        )

    def _finish(self, video: _Video, end: Finished) -> None:
        now = file_stamp(video.file.path)
        if now is not None and now != video.stamp:
            self._drop(video.file.key)
            self._fail(
                video.file,
                VideoError(
                    "damaged",
                    "the file was changed while it was read",
                    remedy="Run the same command again once it is whole.",
                ),
            )
            return
        damage = [text for text in end.warnings if text.startswith(("damaged", "truncated"))]
        if self.config.strict and damage:
            said = [text.removeprefix("damaged: ") for text in damage]
            self._drop(video.file.key)
            remedy = "Fetch or copy it again; without --strict what can be decoded is kept."
            self._fail(video.file, VideoError("damaged", "; ".join(said), remedy=remedy))
            return
        if self.sampling.n_clips(end.n_ticks) == 0 and self.config.short_videos != "pad":
            self._drop(video.file.key)
            self._too_short(video.file, end)
            return
        self._collect(video, video.assembler.finish(end.n_ticks, self._encoding.room, pad=True))
        # Only now is the number of its clips known: before, a batch that ends with one of them
        # would have made the video look whole.
        video.end = end
        self._count_seconds(video, float(end.end_s - end.start_s))
        self._commit_if_whole(video)

    def _too_short(self, file: VideoFile, end: Finished) -> None:
        needed = float(self.sampling.clip_duration_s)
        error = VideoError(
            "too-short",
            f"{float(end.end_s - end.start_s):.3f} s long, one clip takes {needed:.3f} s",
        )
        if self.config.short_videos == "skip":
            self._end(VideoResult.without_features(file, error, "skipped"))
        else:
            self._fail(file, error)

    def _collect(self, video: _Video, clips: Iterator[Clips]) -> None:
        for some in clips:
            self._encoding.add(video, some)

    def _hand_out(self, batch: Batch[_Video], rows: npt.NDArray[np.float32]) -> None:
        self.progress.n_clips += len(rows)
        start = 0
        for video, count in batch.owners:
            if not video.dropped:
                video.sink.append(rows[start : start + count])
                video.n_rows += count
                if video.end is None:
                    self._count_seconds(video, video.n_rows * float(self.sampling.stride_s))
                self._commit_if_whole(video)
            start += count
        self._tell_progress()

    def _count_seconds(self, video: _Video, encoded_s: float) -> None:
        self.progress.video_s += encoded_s - video.encoded_s
        video.encoded_s = encoded_s

    def _commit_if_whole(self, video: _Video) -> None:
        end = video.end
        if end is None or video.n_rows < video.assembler.n_emitted:
            return
        del self._videos[video.file.key]
        if video.n_rows == 0:
            video.sink.abort()
            self._fail(video.file, VideoError("no-frames", "no frame could be decoded"))
            return
        attributes = self._attributes(video, end)
        result = VideoResult(
            video.file.key,
            str(video.file.path),
            "done",
            n_rows=video.n_rows,
            duration_s=attributes["duration_s"],
            decoder=end.decoder,
            warnings=tuple(json.loads(attributes["warnings"])),
        )
        video.sink.commit(attributes, lambda: self._safe(result))

    def _attributes(self, video: _Video, end: Finished) -> dict[str, Any]:
        duration_s = float(end.end_s - end.start_s)
        warnings = list(end.warnings)
        n_samples = self.sampling.n_samples(end.n_ticks)
        padded = max(0, self.sampling.clip_length - n_samples)
        if padded:
            warnings.append(
                f"short: {n_samples} of {self.sampling.clip_length} samples, "
                "the last frame is repeated"
            )
        fps = video.info.fps or (end.n_frames / duration_s if duration_s else 0.0)
        return {
            "video": storable(video.file.path.name),
            "source_bytes": video.source_bytes,
            "source_fps": float(fps),
            "source_frames": end.n_frames,
            "source_start_s": float(end.start_s),
            "duration_s": duration_s,
            **sampling_attributes(self.sampling),
            "padding": "repeat-last-frame" if padded else "none",
            "padded_samples": padded,
            "decoder": end.decoder,
            "warnings": json.dumps([storable(text) for text in warnings]),
        }

    def _fail(self, file: VideoFile, error: VideoError) -> None:
        self._end(VideoResult.without_features(file, error))

    def _end(self, result: VideoResult) -> None:
        self.report.videos.append(result)
        self.progress.count_end(result, file_size(result.path))
        self.reporter.result(result)
        self._tell_progress()

    def _tell_progress(self) -> None:
        self.progress.begun_bytes = sum(video.begun_bytes for video in self._videos.values())
        self.reporter.advance(VIDEOS, self.progress.n_ended, self.progress)

    def _safe(self, result: VideoResult) -> None:
        """A video is on the disk; called on the writer's thread."""
        self._results.put(result)
        self._wake()

    def flush_results(self) -> None:
        """Report the videos that became safe since the last call."""
        with suppress(queue.Empty):
            while True:
                self._end(self._results.get_nowait())

    def _drop(self, key: str) -> None:
        video = self._videos.pop(key, None)
        if video is not None:
            video.dropped = True
            self._count_seconds(video, 0.0)
            video.sink.abort()

    def _note(self, text: str) -> None:
        self.report.notes.append(text)
        self.reporter.message(text)

    def _note_wait(self, seconds: float) -> None:
        # Until the decode processes have started, every encoder waits.
        if self.progress.encode_s:
            self.progress.decode_wait_s += seconds
