"""Frames on their way from the decode pool to the encoder's device.

The feeder, a thread of its own, takes them out of the decode workers' shared memory and has them
normalised on the device while the encoder works.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from tspcli.encoders import Encoder
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.errors import DependencyError
from tspcli.extraction.extract_config import EncoderInfo, ExtractConfig
from tspcli.extraction.run_report import Trace
from tspcli.sampling import Sampling
from tspcli.sampling.yuv import YuvFormat, YuvReading
from tspcli.video import (
    DECODERS,
    DecodePool,
    Failed,
    Finished,
    Frames,
    Idle,
    Opened,
    Restarted,
    VideoFile,
    Woken,
)

_CPU_CHUNK_BYTES = 1 << 20
_CUDA_CHUNK_BYTES = 4 << 20
"""Frames that travel together. On a CPU every chunk under way costs four times its size in prepared
float32 frames of the same memory; on CUDA larger copies are worth more."""
_LOOK_UP_S = 0.25
_QUEUED_CHUNKS = 2
_KEPT_FORMATS = 64
"""Formats whose tables are kept on the device, 0.8 MB each for 112 x 112 pixels."""


class Heartbeat:
    """Receives an engine's signs of progress, from its threads; this one ignores them."""

    def engine_tick(self) -> None:
        """The engine's thread looked for work."""

    def batch_done(self) -> None:
        """The engine's thread has finished a batch."""

    def frames_taken(self) -> None:
        """The feeder has taken something from the decode pool."""

    def frames_returned(self) -> None:
        """The feeder is done with what it took."""


def open_pool(
    videos: Sequence[VideoFile],
    encoder: EncoderInfo,
    sampling: Sampling,
    config: ExtractConfig,
    *,
    device: str,
    threads: int | None = None,
    hold_open: bool = False,
) -> DecodePool:
    """A pool that decodes what an encoder takes.

    Args:
        videos: In the order in which they are started.
        encoder: What is known of the encoder.
        sampling: How videos are cut into clips.
        config: The user's choices.
        device: Where the encoder computes; a decoder that uses a GPU uses that one.
        threads: Threads of a decoder; None shares the machine's cores among the decode workers.
        hold_open: Wait for further videos.

    Raises:
        DependencyError: If the decoder needs a GPU and there is none.
    """
    on_cpu = encoder.device_type == "cpu"
    decoder = DECODERS.get(config.decoder)
    if decoder is not None and decoder.on_gpu and not torch.cuda.is_available():
        raise DependencyError(
            f"The decoder {decoder.name} needs a GPU, and torch sees none.",
            remedy="Use --decoder auto, or see `tsp doctor`.",
            option="--decoder",
            value=decoder.name,
        )
    return DecodePool(
        videos,
        sampling=sampling,
        spec=encoder.frame_spec,
        # A CPU would take from the encoder what the decode processes save.
        as_yuv=not on_cpu,
        workers=config.workers,
        decoder=config.decoder,
        timeout_s=config.decode_timeout_s,
        chunk_bytes=_CPU_CHUNK_BYTES if on_cpu else _CUDA_CHUNK_BYTES,
        threads=threads,
        devices=[device] if device.startswith("cuda") else [],
        hold_open=hold_open,
    )


@dataclass(frozen=True)
class PreparedFrames:
    """Normalised frames on their way to the device.

    Attributes:
        pixels: (N, 3, h, w); on an accelerator perhaps not there yet.
        ready: What the device has to wait for before it reads them; None if they are there.
    """

    pixels: torch.Tensor
    ready: torch.Event | None = None

    def receive(self) -> torch.Tensor:
        """The frames, for use on this thread's current stream; the thread itself does not wait."""
        if self.ready is not None:
            stream = torch.accelerator.current_stream(self.pixels.device)
            stream.wait_event(self.ready)
            # They were allocated on another stream, which must not use their memory again before
            # this one is done with them.
            self.pixels.record_stream(stream)
        return self.pixels


class FramePreparer:
    """Prepares chunk after chunk; to be used by one thread.

    On an accelerator it has a stream of its own and copies from page-locked memory: a copy from
    ordinary memory waits for all that runs on its stream, which would be the encoder.

    Args:
        encoder: Whose frames they are.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._stream: torch.Stream | None = None
        if encoder.device.type != "cpu":
            self._stream = torch.Stream(encoder.device)
        # By format; they belong to this thread's stream.
        self._yuv_frames: dict[YuvFormat, YuvFrames] = {}

    def prepare(self, frames: Frames) -> PreparedFrames:
        """Start to prepare frames; they may be released at once."""
        pixels, yuv, on_device = frames.pixels, frames.yuv, frames.on_device
        if self._stream is None:
            return PreparedFrames(self._prepared(torch.from_numpy(pixels), yuv))
        with self._stream:
            if on_device is not None:
                assert yuv is not None
                decoded = PreparedFrames(pixels, on_device).receive()
                made = self._encoder.prepare(self._frames_of(yuv).from_samples(decoded))
            else:
                # Torch keeps the page-locked copy until the stream has read it.
                locked = torch.from_numpy(pixels).pin_memory()
                made = self._prepared(locked.to(self._encoder.device, non_blocking=True), yuv)
            return PreparedFrames(made, self._stream.record_event())

    def _prepared(self, pixels: torch.Tensor, yuv: YuvFormat | None) -> torch.Tensor:
        if yuv is not None:
            pixels = self._frames_of(yuv).from_packed(pixels)
        return self._encoder.prepare(pixels)

    def _frames_of(self, yuv: YuvFormat) -> YuvFrames:
        if yuv not in self._yuv_frames:
            if len(self._yuv_frames) >= _KEPT_FORMATS:
                self._yuv_frames.clear()
            reading = YuvReading(yuv, self._encoder.frame_spec)
            self._yuv_frames[yuv] = YuvFrames(reading, self._encoder.device)
        return self._yuv_frames[yuv]


@dataclass
class Prepared:
    """A chunk of frames that is on its way to the encoder's device."""

    event: Frames
    frames: PreparedFrames


FeedItem = Prepared | Opened | Finished | Failed | Restarted | Idle | Woken
_Item = FeedItem | BaseException | None


def feed(
    pool: DecodePool,
    encoder: Encoder,
    note_wait: Callable[[float], None],
    trace: Trace,
    heartbeat: Heartbeat,
) -> Generator[FeedItem | None, None, None]:
    """The pool's events, with frames prepared on a thread of their own, a bounded number ahead.

    Args:
        pool: Is closed in the end.
        encoder: Whose frames they are.
        note_wait: Called with the seconds in which nothing came.
        trace: Receives what each side did when.
        heartbeat: Receives the feeder's signs of progress.

    Yields:
        None now and then while there is no event.
    """
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
                for event in pool.live():
                    if stop.is_set():
                        return
                    heartbeat.frames_taken()
                    if isinstance(event, Frames):
                        trace.decoded(event)
                        with trace.span("prepare", frames=len(event.ticks)):
                            frames = preparer.prepare(event)
                        event.release()
                        put(Prepared(event, frames))
                    else:
                        put(event)
                    heartbeat.frames_returned()
            put(None)
        except BaseException as error:  # raised again where the items are taken
            put(error)

    feeder = threading.Thread(target=work, name="tspcli-feeder", daemon=True)
    feeder.start()
    try:
        while True:
            waiting = time.monotonic()
            with trace.span("wait for frames"):
                try:
                    item = items.get(timeout=_LOOK_UP_S)
                except queue.Empty:
                    note_wait(time.monotonic() - waiting)
                    yield None
                    continue
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
