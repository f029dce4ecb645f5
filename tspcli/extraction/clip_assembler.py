"""Cuts frames that arrive in order into clips, and fills batches with clips of many videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tspcli.sampling import Sampling
from tspcli.sampling.windows import first_tick_kept, ticks_of_clips, ticks_of_series

Owner = TypeVar("Owner")


@dataclass(frozen=True)
class ClipSeries:
    """Consecutive clips of one video, as the frames that they share.

    Attributes:
        frames: Prepared frames, shape (S, 3, h, w), S = (clips - 1) * stride + clip_length.
        sampling: How clips are cut from them.
    """

    frames: torch.Tensor
    sampling: Sampling

    def __len__(self) -> int:
        return (len(self.frames) - self.sampling.clip_length) // self.sampling.stride + 1

    def __getitem__(self, clips: slice) -> ClipSeries:
        first, end, _ = clips.indices(len(self))
        stride, length = self.sampling.stride, self.sampling.clip_length
        frames = self.frames[first * stride : (end - 1) * stride + length]
        return ClipSeries(frames, self.sampling)


Clips = torch.Tensor | ClipSeries
"""Clips, shape (B, 3, T, h, w), or a series of them."""


class ClipAssembler:
    """Cuts one video's frames into clips while they arrive; keeps only what later clips need.

    Args:
        sampling: Which clips.
        as_series: Give consecutive clips as a series, as many at once as are allowed.
        full_only: Give the last clips as such, unless they are as many as are allowed.
    """

    def __init__(
        self, sampling: Sampling, *, as_series: bool = False, full_only: bool = False
    ) -> None:
        assert (sampling.is_regular and sampling.is_plain) or not as_series
        self.sampling = sampling
        self.as_series = as_series
        self._full_only = full_only
        self.n_emitted = 0
        """Clips emitted so far."""
        self.n_frames = 0
        """Frames taken so far."""
        self._frames: deque[torch.Tensor] = deque()
        self._n_dropped = 0
        # Parallel, ascending in tick: which frame (counted from the video's first) a tick shows.
        self._ticks = np.empty(0, dtype=np.int64)
        self._frame_of_tick = np.empty(0, dtype=np.int64)

    def add(
        self, frames: torch.Tensor, ticks: Sequence[Sequence[int]], limit: int
    ) -> Iterator[Clips]:
        """Take the next frames and give the clips that they complete.

        Args:
            frames: Prepared frames, shape (n, 3, h, w).
            ticks: For each frame the needed ticks that it shows, ascending over all.
            limit: How many clips to give at once at most.

        Yields:
            Clips in time order, shape (at most ``limit``, 3, clip_length, h, w).
        """
        counts = [len(shown) for shown in ticks]
        added = np.fromiter((tick for shown in ticks for tick in shown), np.int64, sum(counts))
        owners = np.repeat(np.arange(len(counts)) + self.n_frames, counts)
        self._ticks = np.concatenate([self._ticks, added])
        self._frame_of_tick = np.concatenate([self._frame_of_tick, owners])
        self._frames.append(frames)
        self.n_frames += len(counts)
        n_known = int(self._ticks[-1]) + 1 if len(self._ticks) else 0
        n_clips = self.sampling.n_ready(n_known)
        if self.as_series:
            n_clips -= max(n_clips - self.n_emitted, 0) % limit
        yield from self._emit(n_clips, limit)
        self._drop_used()

    def finish(self, n_ticks: int, limit: int, *, pad: bool) -> Iterator[Clips]:
        """Give the clips that are left once the video's length is known.

        Args:
            n_ticks: Ticks of the whole video.
            limit: How many clips to give at once at most.
            pad: Make one clip of a video that is too short for any by repeating its last frame.
        """
        n_clips = self.sampling.n_clips(n_ticks)
        if n_clips == 0 and pad and len(self._ticks):
            n_clips = 1
        if self.as_series and self._full_only:
            yield from self._emit(n_clips - (n_clips - self.n_emitted) % limit, limit, n_ticks)
            self.as_series = False
        yield from self._emit(n_clips, limit, n_ticks)

    def _emit(self, n_clips: int, limit: int, n_ticks: int | None = None) -> Iterator[Clips]:
        while self.n_emitted < n_clips:
            count = min(limit, n_clips - self.n_emitted)
            ticks = self._ticks_of_next(count, n_ticks)
            position = np.searchsorted(self._ticks, ticks)
            # Past the end of a padded video stands its last frame.
            position = np.minimum(position, len(self._ticks) - 1)
            index = self._frame_of_tick[position] - self._n_dropped
            frames = self._joined_frames()
            picked = frames[_moved(torch.from_numpy(index.reshape(-1)), frames.device)]
            self.n_emitted += count
            if self.as_series:
                yield ClipSeries(picked, self.sampling)
                continue
            if self.sampling.tail == "zero":
                shown = torch.from_numpy((ticks >= 0).reshape(-1, *[1] * (frames.ndim - 1)))
                picked = picked * _moved(shown, frames.device)
            clips = picked.reshape(count, self.sampling.clip_length, *frames.shape[1:])
            yield clips.transpose(1, 2)

    def _ticks_of_next(self, count: int, n_ticks: int | None) -> npt.NDArray[np.int64]:
        """Ticks of the next clips, (count, clip_length), or of their series."""
        if self.as_series:
            return ticks_of_series(self.sampling, self.n_emitted, count)
        return ticks_of_clips(self.sampling, self.n_emitted, count, n_ticks)

    def _joined_frames(self) -> torch.Tensor:
        if len(self._frames) > 1:
            joined = torch.cat(tuple(self._frames))
            self._frames.clear()
            self._frames.append(joined)
        return self._frames[0]

    def _drop_used(self) -> None:
        n_known = int(self._ticks[-1]) + 1 if len(self._ticks) else 0
        kept_tick = first_tick_kept(self.sampling, self.n_emitted, n_known)
        keep_from = int(np.searchsorted(self._ticks, kept_tick))
        # The very last frame stays: a later padding or repetition may show it again.
        keep_from = min(keep_from, max(len(self._ticks) - 1, 0))
        self._ticks = self._ticks[keep_from:]
        self._frame_of_tick = self._frame_of_tick[keep_from:]
        if len(self._frame_of_tick):
            unused = int(self._frame_of_tick[0]) - self._n_dropped
            if unused > 0:
                # A copy, so that the chunk that the frames came in can be freed.
                kept = self._joined_frames()[unused:].clone()
                self._frames.clear()
                self._frames.append(kept)
                self._n_dropped += unused


def _moved(index: torch.Tensor, device: torch.device) -> torch.Tensor:
    """An index on a device, whose work this thread does not wait for.

    A copy from ordinary memory would: until the batch before is encoded.
    """
    if device.type != "cpu":
        index = index.pin_memory()
    return index.to(device, non_blocking=True)


@dataclass
class Batch(Generic[Owner]):
    """Clips of one or many videos.

    Attributes:
        clips: The clips; a series is of one video.
        owners: (owner, number of its clips) in the order of the clips.
    """

    clips: Clips
    owners: list[tuple[Owner, int]]


@dataclass
class Batcher(Generic[Owner]):
    """Fills batches of one constant size with clips, whichever video they are from."""

    size: int
    _clips: list[torch.Tensor] = field(default_factory=list)
    _owners: list[tuple[Owner, int]] = field(default_factory=list)
    _count: int = 0

    def add(self, owner: Owner, clips: Clips) -> Iterator[Batch[Owner]]:
        """Take clips of one owner; give each batch that becomes full. A series is one."""
        if isinstance(clips, ClipSeries):
            yield Batch(clips, [(owner, len(clips))])
            return
        while len(clips):
            taken = clips[: self.size - self._count]
            clips = clips[len(taken) :]
            self._clips.append(taken)
            self._owners.append((owner, len(taken)))
            self._count += len(taken)
            if self._count >= self.size:
                yield from self.flush()

    def flush(self) -> Iterator[Batch[Owner]]:
        """Give what is left, if anything, as a smaller batch."""
        if self._count:
            clips = self._clips[0] if len(self._clips) == 1 else torch.cat(self._clips)
            batch = Batch(clips, self._owners)
            self._clips, self._owners, self._count = [], [], 0
            yield batch
