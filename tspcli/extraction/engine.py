"""The engine: decode processes in front, one encoder that is never idle, rows handed to a sink.

Three threads share the work. The feeder takes frames out of the decode workers' shared memory,
brings them to the encoder's device and normalises them, once each. The main thread cuts clips,
fills batches of constant size with clips of whichever videos are under way, and runs the encoder.
The sink (see :mod:`tspcli.extraction.writing`) writes on a third. Every queue between them is
bounded, so that the memory does not depend on how long a video is.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tspcli.encoders import Encoder
from tspcli.errors import DependencyError, TspError, VideoError
from tspcli.extraction.clips import Batch, Batcher, ClipAssembler, Clips, ClipSeries
from tspcli.extraction.memory import kept_memory
from tspcli.extraction.plan import file_size
from tspcli.extraction.preparing import FramePreparer, PreparedFrames
from tspcli.extraction.progress import Observer, Progress
from tspcli.extraction.report import ExtractReport, VideoResult
from tspcli.extraction.settings import ExtractConfig
from tspcli.extraction.trace import Trace
from tspcli.features.metadata import sampling_attributes
from tspcli.timeline import Sampling
from tspcli.video import (
    DECODERS,
    DecodePool,
    Failed,
    Finished,
    Frames,
    Opened,
    Restarted,
    VideoFile,
    VideoInfo,
)

_QUEUED_CHUNKS = 2
_CPU_BATCH = 4
_CUDA_BATCH = 64
_SERIES_CLIPS = 16
"""Neighbouring clips that are encoded as one series: the ends of a series are computed twice."""
_CPU_CHUNK_BYTES = 1 << 20
_CUDA_CHUNK_BYTES = 4 << 20
"""Frames that travel together. On a CPU every chunk under way costs four times its size in prepared
float32 frames of the same memory; on CUDA larger copies are worth more."""


class RowSink(Protocol):
    """Where the rows of one video go."""

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Take the next rows, shape (n, D)."""

    def commit(self, attributes: Mapping[str, Any], done: Callable[[], None]) -> None:
        """All rows were given; call ``done`` once they are safe."""

    def abort(self) -> None:
        """Forget the rows given so far."""


@dataclass(eq=False)
class _Video:
    """A video under way."""

    file: VideoFile
    sink: RowSink
    assembler: ClipAssembler
    info: VideoInfo | None = None
    n_rows: int = 0
    end: Finished | None = None
    dropped: bool = False


@dataclass
class _Prepared:
    """A chunk of frames that is on its way to the encoder's device."""

    event: Frames
    frames: PreparedFrames


_Item = _Prepared | Opened | Finished | Failed | Restarted | BaseException | None


@dataclass
class Engine:
    """One run over a list of videos.

    Attributes:
        encoder: What turns clips into rows.
        sampling: How videos are cut into clips.
        config: The user's choices.
        open_sink: Makes the sink of a video's rows; called again if its decoding starts afresh.
        report: Where the outcome is collected.
        observer: Who watches.
    """

    encoder: Encoder
    sampling: Sampling
    config: ExtractConfig
    open_sink: Callable[[VideoFile], RowSink]
    report: ExtractReport
    observer: Observer = field(default_factory=Observer)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        decoder = DECODERS.get(self.config.decoder)
        if decoder is not None and decoder.on_gpu and not torch.cuda.is_available():
            raise DependencyError(
                f"The decoder {decoder.name} needs a GPU, and torch sees none.",
                remedy="Use --decoder auto, or see `tsp doctor`.",
            )
        self._videos: dict[str, _Video] = {}
        self._batch_size = self.config.batch_size or (
            _CPU_BATCH if self.encoder.device.type == "cpu" else _CUDA_BATCH
        )
        self._batcher: Batcher[_Video] = Batcher(self._batch_size)
        self._trace = Trace(self.config.profile)
        self._as_series = self.encoder.shares(self.sampling)
        self._results: queue.SimpleQueue[VideoResult] = queue.SimpleQueue()
        self._sizes: dict[str, int] = {}

    def run(self, videos: Sequence[VideoFile]) -> None:
        """Encode the videos, the largest first; returns once every row was handed to its sink."""
        self._sizes = {video.key: file_size(video) for video in videos}
        self.progress.total_bytes = sum(self._sizes.values())
        # Size stands for duration here: it is free to read, and the order only has to be good.
        ordered = sorted(videos, key=lambda video: (-self._sizes[video.key], video.key))
        on_cpu = self.encoder.device.type == "cpu"
        started = time.monotonic()
        pool = DecodePool(
            ordered,
            sampling=self.sampling,
            spec=self.encoder.frame_spec,
            workers=self.config.workers,
            decoder=self.config.decoder,
            timeout_s=self.config.decode_timeout_s,
            chunk_bytes=_CPU_CHUNK_BYTES if on_cpu else _CUDA_CHUNK_BYTES,
        )
        try:
            items = _feed(pool, self.encoder, self._note_wait, self._trace)
            keeping = kept_memory() if on_cpu else nullcontext()
            with keeping, pool, closing(items), torch.inference_mode():
                for item in items:
                    self.progress.elapsed_s = time.monotonic() - started
                    self._handle(item)
                for batch in self._batcher.flush():
                    self._encode(batch)
        except BaseException:
            for video in self._videos.values():
                with suppress(TspError):
                    video.sink.abort()
            raise
        finally:
            self.progress.elapsed_s = time.monotonic() - started
            self._copy_progress()
            self._trace.write()

    def _handle(self, item: _Prepared | Opened | Finished | Failed | Restarted) -> None:
        event = item.event if isinstance(item, _Prepared) else item
        file = event.job
        if isinstance(item, Opened):
            self._begin(file).info = item.info
        elif isinstance(item, _Prepared):
            video, frames = self._videos[file.key], item.frames.receive()
            self._collect(video, video.assembler.add(frames, item.event.ticks, self._room))
        elif isinstance(item, Restarted):
            self._drop(file.key)
            self.observer.message(f"{file.path}: {item.why}; trying {item.decoder}.")
        elif isinstance(item, Failed):
            self._drop(file.key)
            self._fail(file, item.error)
        else:
            self._finish(self._videos[file.key], item)
        self.flush_results()

    def _begin(self, file: VideoFile) -> _Video:
        self._drop(file.key)
        video = _Video(
            file, self.open_sink(file), ClipAssembler(self.sampling, as_series=self._as_series)
        )
        self._videos[file.key] = video
        return video

    def _finish(self, video: _Video, end: Finished) -> None:
        damage = [text for text in end.warnings if text.startswith(("damaged", "truncated"))]
        if self.config.strict and damage:
            said = [text.removeprefix("damaged: ") for text in damage]
            self._drop(video.file.key)
            self._fail(video.file, VideoError("damaged", "; ".join(said)))
            return
        if self.sampling.n_clips(end.n_ticks) == 0 and self.config.short_videos != "pad":
            self._drop(video.file.key)
            self._too_short(video.file, end)
            return
        self._collect(video, video.assembler.finish(end.n_ticks, self._room, pad=True))
        # Only now is the number of its clips known: before, a batch that ends with one of them
        # would have made the video look whole.
        video.end = end
        self.progress.video_s += float(end.end_s - end.start_s)
        self._commit_if_whole(video)

    def _too_short(self, file: VideoFile, end: Finished) -> None:
        needed = float(self.sampling.clip_duration_s)
        error = VideoError(
            "too-short",
            f"{float(end.end_s - end.start_s):.3f} s long, one clip takes {needed:.3f} s",
            remedy="Use --short-videos pad to repeat its last frame.",
        )
        if self.config.short_videos == "skip":
            self._end(
                VideoResult(
                    file.key, str(file.path), "skipped", reason=error.reason, detail=error.detail
                )
            )
        else:
            self._fail(file, error)

    def _collect(self, video: _Video, clips: Iterator[Clips]) -> None:
        for some in clips:
            for batch in self._batcher.add(video, some):
                self._encode(batch)

    @property
    def _room(self) -> int:
        if self._as_series and self.config.batch_size is None:
            return _SERIES_CLIPS
        return self._batcher.size

    def _encode(self, batch: Batch[_Video]) -> None:
        started = time.monotonic()
        with self._trace.span("encode", clips=len(batch.clips)):
            rows = self._encode_or_halve(batch.clips).numpy()
        self.progress.encode_s += time.monotonic() - started
        self.progress.n_clips += len(rows)
        start = 0
        for video, count in batch.owners:
            if not video.dropped:
                video.sink.append(rows[start : start + count])
                video.n_rows += count
                self._commit_if_whole(video)
            start += count
        self.observer.progressed(self.progress)

    def _rows(self, clips: Clips) -> torch.Tensor:
        if isinstance(clips, ClipSeries):
            return self.encoder.encode_series(clips.frames, clips.sampling)
        return self.encoder.encode(clips)

    def _encode_or_halve(self, clips: Clips) -> torch.Tensor:
        """Encode; on a lack of memory halve the batch, for good, and go on."""
        pieces: list[torch.Tensor] = []
        start = 0
        size = len(clips)
        while start < len(clips):
            try:
                pieces.append(self._rows(clips[start : start + size]))
                start += size
            except (torch.OutOfMemoryError, MemoryError) as error:
                if size == 1:
                    raise TspError(
                        "There is not enough memory to encode a single clip.",
                        remedy="Free memory on the device, or use a smaller encoder.",
                    ) from error
                size = (size + 1) // 2
                self._batcher.size = min(self._batcher.size, size)
            else:
                continue
            # Outside of the handler, whose traceback holds on to the failed attempt's tensors.
            if self.encoder.device.type == "cuda":
                torch.cuda.empty_cache()
            note = f"Out of memory: going on with batches of {size}."
            self.report.notes.append(note)
            self.observer.message(note)
        return torch.cat(pieces) if len(pieces) != 1 else pieces[0]

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
        video.sink.commit(attributes, lambda: self._results.put(result))

    def _attributes(self, video: _Video, end: Finished) -> dict[str, Any]:
        assert video.info is not None
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
            "video": _storable(video.file.path.name),
            "source_bytes": self._sizes[video.file.key],
            "source_fps": float(fps),
            "source_frames": end.n_frames,
            "source_start_s": float(end.start_s),
            "duration_s": duration_s,
            **sampling_attributes(self.sampling),
            "padding": "repeat-last-frame" if padded else "none",
            "padded_samples": padded,
            "decoder": end.decoder,
            "warnings": json.dumps([_storable(text) for text in warnings]),
        }

    def _fail(self, file: VideoFile, error: VideoError) -> None:
        self._end(
            VideoResult(
                file.key, str(file.path), "failed", reason=error.reason, detail=error.detail
            )
        )

    def _end(self, result: VideoResult) -> None:
        self.report.videos.append(result)
        self.progress.n_ended += 1
        self.progress.n_failed += result.status == "failed"
        self.progress.ended_bytes += self._sizes[result.key]
        self.observer.video_ended(result)
        self.observer.progressed(self.progress)

    def flush_results(self) -> None:
        """Report the videos that became safe since the last call."""
        with suppress(queue.Empty):
            while True:
                self._end(self._results.get_nowait())

    def _drop(self, key: str) -> None:
        video = self._videos.pop(key, None)
        if video is not None:
            video.dropped = True
            video.sink.abort()

    def _note_wait(self, seconds: float) -> None:
        self.progress.decode_wait_s += seconds

    def _copy_progress(self) -> None:
        self.report.n_clips = self.progress.n_clips
        self.report.video_s = self.progress.video_s
        self.report.elapsed_s = self.progress.elapsed_s
        self.report.decode_wait_s = self.progress.decode_wait_s
        self.report.encode_s = self.progress.encode_s


def _feed(
    pool: DecodePool, encoder: Encoder, note_wait: Callable[[float], None], trace: Trace
) -> Generator[_Prepared | Opened | Finished | Failed | Restarted, None, None]:
    """The pool's events, frames prepared on a thread of their own, a bounded number ahead."""
    items: queue.Queue[_Item] = queue.Queue(_QUEUED_CHUNKS)
    stop = threading.Event()

    def put(item: _Item) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            preparer = FramePreparer(encoder)
            with torch.inference_mode():
                for event in pool:
                    if stop.is_set():
                        return
                    if isinstance(event, Frames):
                        trace.decoded(event)
                        with trace.span("prepare", frames=len(event.ticks)):
                            frames = preparer.prepare(torch.from_numpy(event.pixels))
                        event.release()
                        put(_Prepared(event, frames))
                    else:
                        put(event)
            put(None)
        except BaseException as error:
            put(error)

    feeder = threading.Thread(target=work, name="tspcli-feeder", daemon=True)
    feeder.start()
    try:
        while True:
            waiting = time.monotonic()
            with trace.span("wait for frames"):
                item = items.get()
            note_wait(time.monotonic() - waiting)
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        pool.close()
        feeder.join(timeout=5)


def _storable(text: str) -> str:
    """Text that HDF5 can hold: bytes that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
