"""The engine: decode processes in front, an encoder that is never idle, rows handed to a sink.

Three threads share the work. The feeder (:mod:`tspcli.extraction.feeder`) takes frames out of the
decode workers' shared memory, brings them to the encoder's device and normalises them, once each.
The engine's own thread cuts clips and encodes them in batches
(:mod:`tspcli.extraction.batch_encoder`). The sink (:mod:`tspcli.extraction.row_writer`) writes on a
third. Every queue between them is bounded, so memory does not depend on the length of a video. This
module decides what becomes of each video.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

from tspcli.core.devices import is_out_of_memory
from tspcli.core.stop import GentleStop
from tspcli.core.text import first_line, storable
from tspcli.encoders import Encoder
from tspcli.errors import StoreError, TspError, VideoError
from tspcli.extraction.batch_encoder import BatchEncoder
from tspcli.extraction.clip_assembler import Batch, ClipAssembler, Clips
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig
from tspcli.extraction.feeder import FeedItem, Heartbeat, Prepared, feed, open_pool
from tspcli.extraction.row_writer import RowSink
from tspcli.extraction.run_report import Status, Trace, VideoResult
from tspcli.extraction.shard_plan import file_size
from tspcli.extraction.task import RunLog
from tspcli.sampling import Sampling
from tspcli.store.schema import VideoAttributes, row_time_attributes, sampling_attributes
from tspcli.video import (
    DecodePool,
    Failed,
    Finished,
    Idle,
    Opened,
    Restarted,
    VideoFile,
    VideoInfo,
    Woken,
)
from tspcli.video.source import file_stamp

_UNKNOWN_RATE = Fraction(25)
"""Frames per second of a video whose file states none, for progress alone."""


@dataclass(eq=False)
class _Video:
    """A video under way; ``row_s`` are the seconds from one row to the next, as announced."""

    file: VideoFile
    sink: RowSink
    assembler: ClipAssembler
    info: VideoInfo
    stamp: tuple[int, int] | None
    row_s: float
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
        """How much of the file is encoded, if its header says how long it is."""
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
        log: Where the outcome and the figures are collected and shown.
        heartbeat: Receives the engine's signs of progress.
    """

    encoder: Encoder
    sampling: Sampling
    config: ExtractConfig
    open_sink: Callable[[VideoFile], RowSink]
    log: RunLog
    heartbeat: Heartbeat = field(default_factory=Heartbeat)

    def __post_init__(self) -> None:
        self._videos: dict[str, _Video] = {}
        self._trace = Trace(self.config.profile)
        self._batches: BatchEncoder[_Video] = BatchEncoder(
            self.encoder,
            self.sampling,
            self.config.batch_size,
            hand_out=self._hand_out,
            log=self.log,
            trace=self._trace,
        )
        self._wake: Callable[[], None] = lambda: None
        self._results: queue.SimpleQueue[VideoResult] = queue.SimpleQueue()
        self._stop = GentleStop(self.log.reporter)

    def run(self, videos: Sequence[VideoFile]) -> None:
        """Encode the videos in this order; returns once every row was handed to its sink."""
        info, device = EncoderInfo.of(self.encoder), str(self.encoder.device)
        self.consume(open_pool(videos, info, self.sampling, self.config, device=device))

    def consume(self, pool: DecodePool) -> None:
        """Encode what a pool decodes until it ends; it is closed then.

        Raises:
            TspError: If rows cannot be written, or memory is short for a single clip, or for the
                frames and clips of a run.
            KeyboardInterrupt: If the reporter wanted the run to stop.
        """
        started = time.monotonic()
        figures = self.log.figures
        self._wake = pool.wake
        try:
            items = feed(pool, self.encoder, self._note_wait, self._trace, self.heartbeat)
            keeping = self._batches.kept_memory()
            with keeping, closing(pool), closing(items), torch.inference_mode():
                for item in items:
                    self.heartbeat.engine_tick()
                    if self._stop.begins():
                        pool.drain()
                    if item is None:
                        continue
                    figures.elapsed_s = time.monotonic() - started
                    self._handle(item)
                self._batches.flush()
            self._stop.conclude()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Halving a batch helps where it is encoded; frames and clips were there before.
            raise TspError(
                f"Out of memory for the frames and clips of a run ({first_line(error)}).",
                remedy="Use a smaller --batch-size or fewer --workers, or free memory on the "
                "device; what is finished is kept.",
            ) from error
        finally:
            for video in self._videos.values():
                with suppress(TspError):
                    video.sink.abort()
            figures.elapsed_s = time.monotonic() - started
            figures.copy_to(self.log.report)
            try:
                self._trace.write()
            except StoreError as error:
                # That must cost no features.
                self.log.note(f"No trace was written: {error}")

    def flush_results(self) -> None:
        """Report the videos that were committed since the last call."""
        with suppress(queue.Empty):
            while True:
                self._end(self._results.get_nowait())

    def _handle(self, item: FeedItem) -> None:
        if isinstance(item, (Idle, Woken)):
            if isinstance(item, Idle):
                # No more clips come that could fill the batch.
                self._batches.flush()
            self.flush_results()
            return
        event = item.event if isinstance(item, Prepared) else item
        file = event.job
        if isinstance(item, Opened):
            self._begin(item)
        elif isinstance(item, Prepared):
            video, frames = self._videos[file.key], item.frames.receive()
            self._collect(video, video.assembler.add(frames, item.event.ticks, self._batches.room))
        elif isinstance(item, Restarted):
            self._drop(file.key)
            self.log.reporter.message(f"{file.path}: {item.why}; trying {item.decoder}.")
        elif isinstance(item, Failed):
            self._drop(file.key)
            self._leave_out(file, item.error)
        else:
            self._finish(self._videos[file.key], item)
        self.flush_results()

    def _begin(self, opened: Opened) -> None:
        file = opened.job
        self._drop(file.key)
        assembler = ClipAssembler(
            self.sampling,
            as_series=self._batches.as_series,
            full_only=self._batches.full_series_only,
        )
        row_s = float(self.sampling.at_rate(opened.info.fps or _UNKNOWN_RATE).stride_s)
        self._videos[file.key] = _Video(
            file, self.open_sink(file), assembler, opened.info, opened.stamp, row_s
        )

    def _finish(self, video: _Video, end: Finished) -> None:
        error = self._objection(video, end)
        if error is not None:
            self._drop(video.file.key)
            skipped = error.reason == "too-short" and self.config.short_videos == "skip"
            self._leave_out(video.file, error, "skipped" if skipped else "failed")
            return
        self._collect(video, video.assembler.finish(end.n_ticks, self._batches.room, pad=True))
        # Only now is the number of its clips known: before, a batch that ends with one of them
        # would have made the video look complete.
        video.end = end
        self._count_seconds(video, float(end.end_s - end.start_s))
        self._commit_if_complete(video)

    def _objection(self, video: _Video, end: Finished) -> VideoError | None:
        """Why a video that was decoded has no features, if it has none."""
        now = file_stamp(video.file.path)
        if now is not None and now != video.stamp:
            return VideoError(
                "damaged",
                "the file was changed while it was read",
                remedy="Run the same command again once it is complete.",
            )
        damage = [text for text in end.warnings if text.startswith(("damaged", "truncated"))]
        if self.config.strict and damage:
            return VideoError(
                "damaged",
                "; ".join(text.removeprefix("damaged: ") for text in damage),
                remedy="Fetch or copy it again, or drop --strict to keep what can be decoded.",
            )
        if self.sampling.n_clips(end.n_ticks) == 0 and self.config.short_videos != "pad":
            needed = float(self._timed(end).clip_duration_s)
            detail = f"{float(end.end_s - end.start_s):.3f} s long, one clip takes {needed:.3f} s"
            return VideoError("too-short", detail)
        return None

    def _collect(self, video: _Video, clips: Iterator[Clips]) -> None:
        for some in clips:
            self._batches.add(video, some)

    def _hand_out(self, batch: Batch[_Video], rows: npt.NDArray[np.float32]) -> None:
        self.heartbeat.batch_done()
        self.log.figures.n_clips += len(rows)
        start = 0
        for video, count in batch.owners:
            if not video.dropped:
                video.sink.append(rows[start : start + count])
                video.n_rows += count
                if video.end is None:
                    self._count_seconds(video, video.n_rows * video.row_s)
                self._commit_if_complete(video)
            start += count
        self._count_begun()
        self.log.show()

    def _count_seconds(self, video: _Video, encoded_s: float) -> None:
        self.log.figures.video_s += encoded_s - video.encoded_s
        video.encoded_s = encoded_s

    def _commit_if_complete(self, video: _Video) -> None:
        end = video.end
        if end is None or video.n_rows < video.assembler.n_emitted:
            return
        del self._videos[video.file.key]
        if video.n_rows == 0:
            video.sink.abort()
            self._leave_out(video.file, VideoError("no-frames", "no frame could be decoded"))
            return
        attributes = self._attributes(video, end)
        result = VideoResult(
            video.file.key,
            str(video.file.path),
            "done",
            n_rows=video.n_rows,
            duration_s=attributes.duration_s,
            decoder=end.decoder,
            warnings=attributes.warnings or (),
        )
        video.sink.commit(attributes.to_hdf5(), lambda: self._committed(result))

    def _attributes(self, video: _Video, end: Finished) -> VideoAttributes:
        duration_s = float(end.end_s - end.start_s)
        warnings = list(end.warnings)
        sampling = self._timed(end)
        n_samples = sampling.n_samples(end.n_ticks)
        padded = 0
        if sampling.n_clips(end.n_ticks) == 0:
            needed = sampling.phase + sampling.needed
            padded = needed - n_samples
            warnings.append(f"short: {n_samples} of {needed} samples, the last frame is repeated")
        fps = video.info.fps or (end.n_frames / duration_s if duration_s else 0.0)
        return VideoAttributes(
            video=storable(video.file.path.name),
            source_bytes=video.source_bytes,
            source_fps=float(fps),
            source_frames=end.n_frames,
            source_start_s=float(end.start_s),
            duration_s=duration_s,
            **sampling_attributes(sampling),
            **row_time_attributes(sampling, video.n_rows, end.n_ticks, end.frame_times_s),
            padding="repeat-last-frame" if padded else "none",
            padded_samples=padded,
            decoder=end.decoder,
            warnings=tuple(storable(text) for text in warnings),
        )

    def _timed(self, end: Finished) -> Sampling:
        """The sampling with the rate of a video."""
        return self.sampling.at_rate(end.native_rate or _UNKNOWN_RATE)

    def _leave_out(self, file: VideoFile, error: VideoError, status: Status = "failed") -> None:
        self._end(VideoResult.without_features(file, error, status))

    def _end(self, result: VideoResult) -> None:
        self._count_begun()
        self.log.end_video(result, file_size(result.path))

    def _count_begun(self) -> None:
        self.log.figures.begun_bytes = sum(video.begun_bytes for video in self._videos.values())

    def _committed(self, result: VideoResult) -> None:
        """A video is on the disk; called on the writer's thread."""
        self._results.put(result)
        self._wake()

    def _drop(self, key: str) -> None:
        video = self._videos.pop(key, None)
        if video is not None:
            video.dropped = True
            self._count_seconds(video, 0.0)
            video.sink.abort()

    def _note_wait(self, seconds: float) -> None:
        # Until the decode processes have started, every encoder waits.
        if self.log.figures.encode_s:
            self.log.figures.decode_wait_s += seconds
