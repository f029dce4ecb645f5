"""Which source frame is shown when, in exact arithmetic.

The official TSP recipe re-encodes every video to constant 30 fps and samples every second frame.
Nothing is re-encoded here: the frames that the re-encoded video *would* show are chosen from the
source's own presentation timestamps. Three steps, all on :class:`~fractions.Fraction`, because a
floating-point 29.97 is one frame early at nearly every index:

1. *Ticks* (this module). The standardised video is a grid of ticks at ``grid_rate``. Tick 0 is the
   first frame; tick n shows the last source frame whose time, rounded to the nearest tick (halves
   away from zero), is not after n. That is ffmpeg's ``fps`` filter with its default ``round=near``.
2. *Samples* (:mod:`tspcli.sampling.spec`). Sample k lies ``k * grid_rate / frame_rate`` ticks after
   the first.
3. *Clips* (:mod:`tspcli.sampling.spec`, :mod:`tspcli.sampling.windows`). Clip i is made of
   ``clip_length`` samples from sample ``i * stride`` on.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction


def round_half_away(value: Fraction) -> int:
    """Round to the nearest integer, halves away from zero (ffmpeg's AV_ROUND_NEAR_INF)."""
    doubled = 2 * abs(value.numerator) + value.denominator
    magnitude = doubled // (2 * value.denominator)
    return magnitude if value.numerator >= 0 else -magnitude


def grid_tick(time_s: Fraction, grid_rate: Fraction) -> int:
    """The tick of a grid at ``grid_rate`` ticks per second that is nearest to ``time_s``."""
    return round_half_away(time_s * grid_rate)


class TickTrack:
    """Which ticks each frame shows, reported while the frames go by in presentation order.

    A frame's last tick is known when the next frame's time is, so :meth:`push` answers for the
    frame *before* the one pushed, and :meth:`finish` for the last.

    >>> track = TickTrack(Fraction(30))
    >>> track.push(Fraction(0)), track.push(Fraction(1, 10)), track.finish(Fraction(2, 10))
    (range(0, 0), range(0, 3), range(3, 6))
    """

    def __init__(self, grid_rate: Fraction) -> None:
        self.grid_rate = grid_rate
        self._origin: int | None = None
        self._shown_from = 0

    @property
    def n_ticks(self) -> int:
        """Ticks reported so far."""
        return self._shown_from

    def push(self, time_s: Fraction) -> range:
        """Take the next frame's time; return the ticks that the frame before it shows.

        A frame whose time is not after its predecessor's replaces it, as in ffmpeg; the
        predecessor then shows no tick (an empty range).
        """
        tick = grid_tick(time_s, self.grid_rate)
        if self._origin is None:
            self._origin = tick
            return range(0)
        return self._advance(tick - self._origin)

    def finish(self, end_s: Fraction) -> range:
        """Return the ticks of the last frame, which is shown until ``end_s``.

        Raises:
            ValueError: If no frame was added.
        """
        if self._origin is None:
            raise ValueError("no frame was added")
        # A video of one frame shows it, even if its display time rounds to nothing.
        least = 1 if self._shown_from == 0 else 0
        return self._advance(max(grid_tick(end_s, self.grid_rate) - self._origin, least))

    def _advance(self, tick: int) -> range:
        shown = range(self._shown_from, max(tick, self._shown_from))
        self._shown_from = shown.stop
        return shown


class FrameTrack:
    """The clock of the source's own frames: each shows one tick, its own number.

    Reports one frame late, as :class:`TickTrack` does.

    >>> track = FrameTrack()
    >>> track.push(Fraction(0)), track.push(Fraction(1, 10)), track.finish(Fraction(2, 10))
    (range(0, 0), range(0, 1), range(1, 2))

    Attributes:
        times_s: Times of the frames so far, seconds after the first; after :meth:`finish` with that
            of the end.
    """

    def __init__(self) -> None:
        self.times_s = array("d")
        self._first_s: Fraction | None = None

    @property
    def n_ticks(self) -> int:
        """Ticks reported so far."""
        return max(len(self.times_s) - 1, 0)

    def push(self, time_s: Fraction) -> range:
        """Take the next frame's time; return the tick of the frame before it, if there is one."""
        if self._first_s is None:
            self._first_s = time_s
        self.times_s.append(float(time_s - self._first_s))
        return range(max(len(self.times_s) - 2, 0), len(self.times_s) - 1)

    def finish(self, end_s: Fraction) -> range:
        """Return the tick of the last frame, which is shown until ``end_s``."""
        return self.push(end_s)


def display_end_s(times_s: Sequence[Fraction], last_duration_s: Fraction | None) -> Fraction:
    """When the last frame's display time ends.

    Args:
        times_s: Presentation times of all frames in seconds, at least one.
        last_duration_s: The last frame's own duration, if the container states it; otherwise the
            mean distance of the frames is taken, and nothing for a single frame.
    """
    if last_duration_s is not None and last_duration_s > 0:
        return times_s[-1] + last_duration_s
    if len(times_s) < 2:
        return times_s[-1]
    return times_s[-1] + (times_s[-1] - times_s[0]) / (len(times_s) - 1)
