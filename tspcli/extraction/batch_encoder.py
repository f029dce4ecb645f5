"""Clips of whichever videos are under way, encoded in batches of constant size.

Here too is what concerns the memory of batches: which clips cannot fit at all, which the kernel
would otherwise end the process for; batches halved when memory runs out; and memory that the C
allocator keeps between batches. A layer's output is tens of megabytes. glibc takes such blocks from
the system one by one and gives each back when it is freed, so that every batch pays for the same
pages again: on a CPU a fifth of the encoder's time at four clips a batch.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import torch

from tspcli.core.child_process import memory_bytes
from tspcli.core.devices import free_bytes, is_out_of_memory
from tspcli.encoders import Encoder
from tspcli.errors import TspError, UsageError
from tspcli.extraction.clip_assembler import Batch, Batcher, Clips, ClipSeries, Owner
from tspcli.extraction.extract_config import EncoderInfo
from tspcli.extraction.run_report import Trace
from tspcli.extraction.task import RunLog
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec

CPU_BATCH = 4
_CUDA_BATCH = 64
_CUDA_PIXELS = _CUDA_BATCH * 16 * 112 * 112
"""Pixels of a batch on a GPU: those of 64 clips of TSP. As many clips of s3d would exceed 32-bit
indices, and those of swin3d, mvit and i3d the memory of most GPUs."""
_CUDA_NUMBERS = 100
"""Activations that a GPU holds at once for each pixel of a batch, rounded up. By count they are 68
in the first stage of r2plus1d_34 (a block's input, its 144 planes and its output) and 41 in s3d."""
IN_FLIGHT = {"cpu": 0, "accelerator": 1}
"""Batches that a device works on while the next one is put together."""
_SERIES_CLIPS = 16
"""Neighbouring clips that are encoded as one series: the ends of a series are computed twice."""
AT_LEAST = 8
"""Bytes that encoding a batch takes for each byte of its clips, at least: the first layers' outputs
of all our backbones are larger than that."""
# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST = (1 << 31) - 1
_KEPT_BLOCK_BYTES = 1 << 30
_USUAL_BLOCK_BYTES = 32 << 20
_USUAL_TRIM_BYTES = 64 << 20
_USUAL_BLOCKS = 65536
"""Where glibc's own thresholds, which adapt to the program, end up at most."""


class BatchEncoder(Generic[Owner]):
    """Fills batches, encodes them, and gives the rows back to the owners of their clips.

    To be used by one thread.

    Args:
        encoder: What turns clips into rows.
        sampling: How the clips were cut.
        batch_size: Clips at once; None lets the device decide.
        hand_out: Takes a batch and its rows, shape (clips, D), float32, on the CPU.
        log: Counts the seconds of encoding, and notes batches that were halved.
        trace: Receives when each batch was encoded.
    """

    def __init__(
        self,
        encoder: Encoder,
        sampling: Sampling,
        batch_size: int | None,
        *,
        hand_out: Callable[[Batch[Owner], npt.NDArray[np.float32]], None],
        log: RunLog,
        trace: Trace,
    ) -> None:
        self._encoder = encoder
        self._hand_out = hand_out
        self._log = log
        self._trace = trace
        self._sized_by_device = batch_size is None
        self._batcher: Batcher[Owner] = Batcher(
            batch_size or default_batch(encoder.device, encoder.dtype, sampling, encoder.frame_spec)
        )
        self._static = encoder.wants_full_batches
        self._in_flight: deque[tuple[Batch[Owner], Callable[[], torch.Tensor]]] = deque()
        self._n_in_flight = IN_FLIGHT["cpu" if encoder.device.type == "cpu" else "accelerator"]
        self.as_series = encoder.supports_series(sampling) and self._batcher.size >= CPU_BATCH
        """Whether neighbouring clips are to come as a series of frames."""
        self.full_series_only = self._static
        """Whether clips that are too few for a full series are to come as clips."""

    @property
    def room(self) -> int:
        """How many clips to give at once at most."""
        if self.as_series and self._sized_by_device and not self._static:
            return _SERIES_CLIPS
        return self._batcher.size

    def kept_memory(self) -> AbstractContextManager[None]:
        """For the length of a run: what is freed between batches stays this process's."""
        return kept_memory() if self._encoder.device.type == "cpu" else nullcontext()

    def add(self, owner: Owner, clips: Clips) -> None:
        """Take clips of one owner; rows come back sooner or later, in this order."""
        for batch in self._batcher.add(owner, clips):
            self._encode(batch)

    def flush(self) -> None:
        """Encode what is left, and give back all rows."""
        for batch in self._batcher.flush():
            self._encode(batch)
        self._settle()

    def _encode(self, batch: Batch[Owner]) -> None:
        started = time.monotonic()
        with self._trace.span("encode", clips=len(batch.clips)):
            self._in_flight.append((batch, self._encode_or_halve(batch.clips)))
        self._log.figures.encode_s += time.monotonic() - started
        self._settle(self._n_in_flight)

    def _settle(self, left: int = 0) -> None:
        """Hand out the rows of all batches but the last ``left``."""
        while len(self._in_flight) > left:
            batch, wait = self._in_flight.popleft()
            started = time.monotonic()
            with self._trace.span("wait for rows"):
                rows = wait().numpy()
            self._log.figures.encode_s += time.monotonic() - started
            self._hand_out(batch, rows)

    def _start(self, clips: Clips) -> Callable[[], torch.Tensor]:
        """Begin to encode clips, filled up to a full batch where that is faster."""
        if isinstance(clips, ClipSeries):
            return self._encoder.encode_series_async(clips.frames, clips.sampling)
        missing = self._batcher.size - len(clips) if self._static else 0
        if missing <= 0:
            return self._encoder.encode_async(clips)
        filled = torch.cat([clips, clips.new_zeros(missing, *clips.shape[1:])])
        wait = self._encoder.encode_async(filled)
        return lambda: wait()[: len(clips)]

    def _encode_or_halve(self, clips: Clips) -> Callable[[], torch.Tensor]:
        """Begin to encode; if memory runs out, halve the batch for the rest of the run."""
        pieces: list[Callable[[], torch.Tensor]] = []
        start = 0
        # A batch that is filled up takes the memory of a full one.
        size = max(len(clips), self._batcher.size) if self._static else len(clips)
        while start < len(clips):
            try:
                pieces.append(self._start(clips[start : start + size]))
                start += size
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise TspError(
                        "There is not enough memory to encode a single clip.",
                        remedy="Free memory on the device, or use a smaller encoder.",
                    ) from error
                size = (size + 1) // 2
                self._batcher.size = min(self._batcher.size, size)
            else:
                continue
            # Outside the handler, whose traceback holds on to the failed attempt's tensors.
            self._encoder.release()
            self._log.note(f"Out of memory: continuing with batches of {size}.")
        return lambda: torch.cat([wait() for wait in pieces])


def default_batch(
    device: torch.device, dtype: torch.dtype, sampling: Sampling, frame_spec: FrameSpec
) -> int:
    """Clips per batch unless the user chooses.

    On a GPU 64, or fewer if they have more pixels than 64 clips of TSP or if their activations
    would take more than half of the memory that is free.
    """
    if device.type == "cpu":
        return CPU_BATCH
    height, width = frame_spec.output_shape(256, 341)[:2]
    pixels = sampling.clip_length * height * width
    fitting = min(_CUDA_BATCH, _CUDA_PIXELS // pixels)
    if free := free_bytes(device):
        fitting = min(fitting, free // (2 * _CUDA_NUMBERS * dtype.itemsize * pixels))
    return max(1, fitting)


def require_memory(
    sampling: Sampling, info: EncoderInfo, batch_size: int | None, available: int | None = None
) -> None:
    """Refuse clips of which a batch cannot fit into memory, before the kernel ends the process.

    On a GPU only a single clip is checked: how many clips fit there is found out by trying.

    Args:
        sampling: The clips.
        info: The encoder.
        batch_size: Clips at once; None lets the device decide.
        available: Bytes of memory; those of this machine by default.

    Raises:
        UsageError: If the clips take at least more memory than the machine has.
    """
    available = memory_bytes() if available is None else available
    if available is None:
        return
    height, width = info.frame_spec.output_shape(256, 341)[:2]
    n_clips = (batch_size or CPU_BATCH) if info.device_type == "cpu" else 1
    needed = AT_LEAST * n_clips * sampling.clip_length * height * width * 3 * 4
    if needed > available:
        clips = "A clip" if n_clips == 1 else f"A batch of {n_clips} clips"
        raise UsageError(
            f"{clips} of {sampling.clip_length} frames of {height} x {width} takes "
            f"{needed / 1e9:.1f} GB of memory at least, this machine has {available / 1e9:.1f} GB.",
            remedy="Use a smaller --clip-length or --batch-size.",
            value=n_clips,
        )


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let freed memory stay with this process until the context ends; does nothing without glibc.

    A user who tuned the allocator through its environment is not overruled.
    """
    libc = None if _is_tuned() else _glibc()
    if libc is None:
        yield
        return
    # Older versions refuse a threshold above 32 MiB; then no block at all is taken on its own.
    if not libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES):
        libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _USUAL_BLOCK_BYTES)
        libc.mallopt(_M_MMAP_MAX, _USUAL_BLOCKS)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_BYTES)
        libc.malloc_trim(0)


def _is_tuned() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc" in tunables or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library if it is glibc and answers malloc itself, else None."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (raises if it is another)
        libc.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
        libc.malloc_trim.argtypes = (ctypes.c_size_t,)
    except (OSError, TypeError, AttributeError):
        return None
    return libc
