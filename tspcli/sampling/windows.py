"""Which ticks the clips of a video show, and where in time their rows lie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tspcli.sampling.spec import Sampling

Seconds = npt.NDArray[np.float64]


class NeededTicks:
    """Which ticks some clip shows, in a video of which the end is not known yet.

    On a whole step clips share one series of samples: every step-th tick, without those that fall
    between clips where the stride is longer than the clip. Otherwise every clip counts its ticks
    from its own first, and the needed ones are the union over the clips.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._step = sampling.step.numerator if sampling.is_regular else 0
        # A tail that moves a clip back, or repeats the last sample of a grid, may need any sample.
        # (The last frame of a grid may show no tick, so that its last sample is one before it.)
        repeats_grid = sampling.tail == "repeat" and not sampling.is_native
        self._any = sampling.tail == "flush" or repeats_grid
        # What is repeated, in clips that reach beyond the video or instead of a missing first clip.
        self._with_ends = not sampling.is_plain
        residues = {(sampling.phase + offset) % sampling.stride for offset in sampling.picks}
        self._residues = frozenset(residues)
        self._all_samples = self._any or len(residues) == sampling.stride
        self._offsets = frozenset(sampling.sample_tick(offset) for offset in sampling.picks)
        self._first, self._last = min(self._offsets), max(self._offsets)
        self._ticks_a_clip = sampling.stride * sampling.step
        span = max(self._last, 0) - min(self._first, 0)
        self.longest_gap = (
            span + 2 * (int(self._ticks_a_clip) + 1) + sampling.sample_tick(sampling.phase)
        )

    def among(self, ticks: range, *, at_end: bool = False) -> tuple[int, ...]:
        """The needed ticks of a range, ascending.

        Args:
            ticks: The range.
            at_end: Whether the video ends with it.
        """
        if not ticks:
            return ()
        found = self._in_clips(ticks)
        if self._with_ends and ticks[0] == 0 and found[:1] != (0,):
            found = (0, *found)
        if self._with_ends and at_end and found[-1:] != (ticks[-1],):
            found = (*found, ticks[-1])
        return found

    def _in_clips(self, ticks: range) -> tuple[int, ...]:
        step = self._step
        if not step:
            return tuple(tick for tick in ticks if self._any or self._in_a_clip(tick))
        found = range(-(-ticks.start // step) * step, ticks.stop, step)
        if self._all_samples:
            return tuple(found)
        stride = self._sampling.stride
        return tuple(tick for tick in found if tick // step % stride in self._residues)

    def _in_a_clip(self, tick: int) -> bool:
        sampling = self._sampling
        phase = sampling.sample_tick(sampling.phase)
        earliest = max(0, int((tick - self._last - phase) // self._ticks_a_clip) - 1)
        latest = int((tick - self._first - phase) // self._ticks_a_clip) + 1
        return any(
            tick - sampling.sample_tick(sampling.base(clip)) in self._offsets
            for clip in range(earliest, latest + 1)
        )


def ticks_of_clips(
    sampling: Sampling, first: int, count: int, n_ticks: int | None = None
) -> npt.NDArray[np.int64]:
    """The ticks of neighbouring clips, shape (count, clip_length); -1 is a sample of zeros.

    Args:
        sampling: The clips.
        first: The first of them.
        count: How many.
        n_ticks: Ticks of the whole video, to which the tail applies; None if its end is not known.
    """
    if sampling.tail != "drop":
        clips = [sampling.clip_ticks(first + i, n_ticks) for i in range(count)]
        return np.array(clips, dtype=np.int64)
    offsets = [sampling.sample_tick(offset) for offset in sampling.picks]
    starts = [sampling.sample_tick(sampling.base(first + i)) for i in range(count)]
    return np.add.outer(starts, offsets).astype(np.int64)


def ticks_of_series(sampling: Sampling, first: int, count: int) -> npt.NDArray[np.int64]:
    """The ticks that neighbouring clips show together, each once and in time order.

    Only for a regular, plain sampling, whose clips share one series of samples. Samples between
    clips, of a stride longer than a clip, are included.
    """
    begin = first * sampling.stride
    end = begin + (count - 1) * sampling.stride + sampling.clip_length
    return np.array([sampling.sample_tick(k) for k in range(begin, end)], dtype=np.int64)


def first_tick_kept(sampling: Sampling, clip: int, n_known: int) -> int:
    """The first tick that clips from ``clip`` on may show, after ``n_known`` ticks."""
    base = sampling.base(clip)
    if sampling.tail == "flush":
        base = min(base, sampling.n_samples(n_known) - sampling.needed)
    tick = sampling.sample_tick(base) + sampling.sample_tick(sampling.picks[0])
    if sampling.tail == "repeat":
        # All of a clip may lie after the last sample.
        tick = min(tick, sampling.sample_tick(sampling.n_samples(n_known) - 1))
    return tick


def row_times_s(
    sampling: Sampling, n_rows: int, n_ticks: int, frame_times_s: Seconds | None = None
) -> tuple[Seconds, Seconds]:
    """When each row starts and ends, seconds after the video's first frame, each shape (n_rows,).

    Args:
        sampling: The clips. A native one has the rate of the video (:meth:`Sampling.at_rate`).
        n_rows: How many.
        n_ticks: Ticks of the video.
        frame_times_s: Of a native sampling of a video of variable rate: the times of its frames
            and of its end, shape (n_ticks + 1,). A row then starts with the first frame that it
            stands for and ends when the next one after it is shown; beyond the video's ends, frames
            are taken to be at its mean rate.
    """
    bases = np.array([sampling.base(row, n_ticks) for row in range(n_rows)], dtype=np.float64)
    first, end = sampling.window
    if frame_times_s is None:
        rate = float(sampling.frame_rate)
        return (bases + first) / rate, (bases + end) / rate
    return _at(frame_times_s, bases + first), _at(frame_times_s, bases + end)


def _at(times_s: Seconds, positions: Seconds) -> Seconds:
    n_frames = len(times_s) - 1
    mean_s = times_s[-1] / n_frames
    inside = times_s[np.clip(positions, 0, n_frames).astype(np.int64)]
    return inside + (positions - np.clip(positions, 0, n_frames)) * mean_s


def is_series(sampling: Sampling, n_rows: int, n_ticks: int) -> bool:
    """Whether rows follow one another at the stride; a flushed last one does not."""
    if n_rows < 1:
        return True
    last = n_rows - 1
    return sampling.base(last, n_ticks) == sampling.base(last)


def rate_or_times(times_s: Seconds, announced: Fraction | None) -> tuple[Fraction, Seconds | None]:
    """The rate of frames that follow at equal distances, or their times.

    Args:
        times_s: Times of the frames and of the end, seconds after the first; at least two values.
        announced: The rate that the file states, which is exact where it fits.

    Returns:
        The rate and None, if the times are those of a constant rate up to what containers round;
        else the mean rate and the times, ascending.
    """
    n_frames = len(times_s) - 1
    times_s = np.maximum.accumulate(times_s)
    mean = _MEANINGLESS
    if times_s[-1] > 0:
        mean = Fraction(n_frames / float(times_s[-1])).limit_denominator(10**6)
    for rate in (announced, mean):
        if rate:
            late_s = np.abs(times_s[:-1] - np.arange(n_frames) / float(rate))
            if late_s.max() <= _ROUNDED_S:
                return rate, None
    return mean, times_s


_ROUNDED_S = 2e-3
"""Matroska and FLV round times to a millisecond, and announced ends to another."""

_MEANINGLESS = Fraction(1)
"""The rate of frames that are shown for no time."""
