"""Which ticks the clips of a video show, and where in time their rows lie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tspcli.sampling.spec import Sampling


class NeededTicks:
    """Which ticks some clip shows.

    On a whole step clips share one series of samples: every step-th tick, without those that fall
    between clips where the stride is longer than the clip. Otherwise every clip counts its ticks
    from its own first, and the needed ones are the union over the clips.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._step = sampling.step.numerator if sampling.is_regular else 0
        self._all_samples = sampling.stride <= sampling.clip_length
        self._offsets = frozenset(sampling.sample_tick(j) for j in range(sampling.clip_length))
        self._span = max(self._offsets)
        self._ticks_a_clip = sampling.stride * sampling.step
        self.longest_gap = self._span + 2 * (int(self._ticks_a_clip) + 1)

    def among(self, ticks: range) -> tuple[int, ...]:
        """The needed ticks of a range, ascending."""
        if not ticks:
            return ()
        if self._step:
            first = -(-ticks.start // self._step) * self._step
            found = range(first, ticks.stop, self._step)
            if self._all_samples:
                return tuple(found)
            sampling = self._sampling
            return tuple(
                tick
                for tick in found
                if tick // self._step % sampling.stride < sampling.clip_length
            )
        return tuple(tick for tick in ticks if self._in_a_clip(tick))

    def _in_a_clip(self, tick: int) -> bool:
        earliest = max(0, int((tick - self._span) // self._ticks_a_clip))
        latest = int(tick // self._ticks_a_clip) + 1
        first_tick, stride = self._sampling.sample_tick, self._sampling.stride
        return any(
            tick - first_tick(clip * stride) in self._offsets
            for clip in range(earliest, latest + 1)
        )


def ticks_of_clips(sampling: Sampling, first: int, count: int) -> npt.NDArray[np.int64]:
    """The ticks of neighbouring clips, shape (count, clip_length)."""
    offsets = [sampling.sample_tick(j) for j in range(sampling.clip_length)]
    starts = [sampling.sample_tick((first + i) * sampling.stride) for i in range(count)]
    return np.add.outer(starts, offsets).astype(np.int64)


def ticks_of_series(sampling: Sampling, first: int, count: int) -> npt.NDArray[np.int64]:
    """The ticks that neighbouring clips show together, each once and in time order.

    Only for a regular sampling, whose clips share one series of samples. Samples between clips, of
    a stride longer than a clip, are included.
    """
    begin = first * sampling.stride
    end = begin + (count - 1) * sampling.stride + sampling.clip_length
    return np.array([sampling.sample_tick(k) for k in range(begin, end)], dtype=np.int64)


def row_starts_s(sampling: Sampling, n_rows: int) -> npt.NDArray[np.float64]:
    """When the clip of each row starts, seconds after the video's first frame, shape (n_rows,)."""
    return np.arange(n_rows, dtype=np.float64) * float(sampling.stride_s)
