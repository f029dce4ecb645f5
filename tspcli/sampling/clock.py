"""Which source frames make which clip, in exact arithmetic.

The official TSP recipe re-encodes every video to constant 30 fps and samples every second frame.
Nothing is re-encoded here: the frames that the re-encoded video *would* show are chosen from the
source's own presentation timestamps. Three steps, all on :class:`~fractions.Fraction`, because a
floating-point 29.97 is one frame early at nearly every index:

1. *Ticks.* The standardised video is a grid of ticks at ``grid_rate``. Tick 0 is the first frame;
   tick n shows the last source frame whose time, rounded to the nearest tick (halves away from
   zero), is not after n. That is ffmpeg's ``fps`` filter with its default ``round=near``.
2. *Samples.* Sample k lies ``k * grid_rate / frame_rate`` ticks after the first.
3. *Clips.* Clip i is made of ``clip_length`` samples from sample ``i * stride`` on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from tspcli.errors import UsageError


def as_rate(value: Fraction | float | str, name: str = "rate") -> Fraction:
    """Turn a rate as people write it into an exact one.

    Args:
        value: A Fraction, an integer, a decimal string or a ratio such as ``"30000/1001"``. Floats
            are read as the decimal number they print as, so that 29.97 is 2997/100.
        name: What to call the value in an error.

    Raises:
        UsageError: If the value is no positive number.
    """
    try:
        rate = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError, TypeError):
        rate = Fraction(0)
    if rate <= 0:
        raise UsageError(
            f"{name} {value!r} is not a positive number.",
            remedy="Give frames per second, such as 15, 12.5 or 30000/1001.",
        )
    return rate


def round_half_away(value: Fraction) -> int:
    """Round to the nearest integer, halves away from zero (ffmpeg's AV_ROUND_NEAR_INF)."""
    doubled = 2 * abs(value.numerator) + value.denominator
    magnitude = doubled // (2 * value.denominator)
    return magnitude if value.numerator >= 0 else -magnitude


def grid_tick(time_s: Fraction, grid_rate: Fraction) -> int:
    """The tick of a grid at ``grid_rate`` ticks a second that is nearest to ``time_s``."""
    return round_half_away(time_s * grid_rate)


MOST_SAMPLES = 10**9
"""Two years at 15 samples a second; beyond, numbers no longer fit where they are stored."""


@dataclass(frozen=True)
class Sampling:
    """How a video is cut into clips. The defaults are those of the released TSP features.

    Attributes:
        frame_rate: Samples a second inside a clip.
        clip_length: Samples a clip.
        stride: Samples from one clip's start to the next's.
        grid_rate: Frames a second to which the video is standardised before sampling; 30 in the
            official recipe. Equal to ``frame_rate``, the video is sampled directly.
    """

    frame_rate: Fraction = Fraction(15)
    clip_length: int = 16
    stride: int = 16
    grid_rate: Fraction = Fraction(30)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_rate", as_rate(self.frame_rate, "frame rate"))
        object.__setattr__(self, "grid_rate", as_rate(self.grid_rate, "grid rate"))
        for name in ("clip_length", "stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(
                    f"{name.replace('_', ' ')} {value!r} is not a positive whole number.",
                    remedy="Give a number of frames, such as 16.",
                )
            if value > MOST_SAMPLES:
                raise UsageError(
                    f"{name.replace('_', ' ')} {value} is longer than any video.",
                    remedy=f"Give a number of frames up to {MOST_SAMPLES}, such as 16.",
                )
        if self.frame_rate > self.grid_rate:
            raise UsageError(
                f"The frame rate {float(self.frame_rate):g} is above the grid rate "
                f"{float(self.grid_rate):g}, so frames would repeat.",
                remedy=f"Give a grid rate of at least {float(self.frame_rate):g}.",
            )

    @cached_property
    def step(self) -> Fraction:
        """Ticks from one sample to the next; 2 in the official recipe."""
        return self.grid_rate / self.frame_rate

    @property
    def is_regular(self) -> bool:
        """Whether samples fall on every ``step``-th tick, so that all clips share one series."""
        return self.step.denominator == 1

    @property
    def clip_duration_s(self) -> Fraction:
        """Seconds that a clip covers; 16/15 in the official recipe."""
        return self.clip_length / self.frame_rate

    @property
    def stride_s(self) -> Fraction:
        """Seconds from one clip's start to the next's."""
        return self.stride / self.frame_rate

    def n_samples(self, n_ticks: int) -> int:
        """Samples in a standardised video of ``n_ticks`` frames.

        As the official code counts: ``ceil(n_ticks / step)`` where the step is whole, else
        ``floor(n_ticks / step)``.
        """
        if self.is_regular:
            return -(-n_ticks // self.step.numerator)
        return int(n_ticks / self.step)

    def n_clips(self, n_ticks: int) -> int:
        """Whole clips of a standardised video of ``n_ticks`` frames; an incomplete tail is none."""
        return max(0, (self.n_samples(n_ticks) - self.clip_length) // self.stride + 1)

    def sample_tick(self, sample: int) -> int:
        """The tick that a sample shows when samples are counted from the video's start."""
        return sample * self.step.numerator // self.step.denominator

    def clip_ticks(self, clip: int) -> tuple[int, ...]:
        """The ticks of one clip, ``clip_length`` of them.

        Where the step is not whole the official code starts its floor afresh at each clip's first
        frame, and so does this.
        """
        first = self.sample_tick(clip * self.stride)
        return tuple(first + self.sample_tick(j) for j in range(self.clip_length))

    def clip_start_s(self, clip: int) -> Fraction:
        """Start of a clip in seconds after the first frame."""
        return clip * self.stride / self.frame_rate

    def clip_center_s(self, clip: int) -> Fraction:
        """Centre of a clip in seconds after the first frame: ``(clip * stride + 8) / 15``."""
        return (clip * self.stride + Fraction(self.clip_length, 2)) / self.frame_rate

    def clip_end_s(self, clip: int) -> Fraction:
        """End of a clip in seconds after the first frame."""
        return (clip * self.stride + self.clip_length) / self.frame_rate

    def n_clips_at_least(self, duration_s: Fraction) -> int:
        """Clips of a video of ``duration_s`` seconds, before its frames are known."""
        return self.n_clips(grid_tick(duration_s, self.grid_rate))

    def to_dict(self) -> dict[str, str | int]:
        """The sampling as plain values; rates as exact strings (``"15"``, ``"30000/1001"``)."""
        return {
            "frame_rate": str(self.frame_rate),
            "clip_length": self.clip_length,
            "stride": self.stride,
            "grid_rate": str(self.grid_rate),
        }

    @classmethod
    def from_dict(cls, values: dict[str, str | int]) -> Sampling:
        """The inverse of :meth:`to_dict`."""
        return cls(
            frame_rate=as_rate(values["frame_rate"], "frame rate"),
            clip_length=int(values["clip_length"]),
            stride=int(values["stride"]),
            grid_rate=as_rate(values["grid_rate"], "grid rate"),
        )


class TickTrack:
    """Which ticks each frame shows, told while the frames go by in presentation order.

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
        """Ticks told so far."""
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
            ValueError: If no frame was pushed.
        """
        if self._origin is None:
            raise ValueError("no frame was pushed")
        # A video of one frame shows it, even if its display time rounds to nothing.
        least = 1 if self._shown_from == 0 else 0
        return self._advance(max(grid_tick(end_s, self.grid_rate) - self._origin, least))

    def _advance(self, tick: int) -> range:
        shown = range(self._shown_from, max(tick, self._shown_from))
        self._shown_from = shown.stop
        return shown


def shown_frames(times_s: Iterable[Fraction], end_s: Fraction, grid_rate: Fraction) -> list[int]:
    """The index of the frame that each tick shows.

    Args:
        times_s: Presentation times of all frames in seconds, in presentation order.
        end_s: When the last frame's display time ends.
        grid_rate: Ticks a second.

    Returns:
        One frame index a tick; its length is the frame count of the standardised video.
    """
    track = TickTrack(grid_rate)
    shown: list[int] = []
    index = -1
    for index, time_s in enumerate(times_s):
        shown.extend([index - 1] * len(track.push(time_s)))
    if index >= 0:
        shown.extend([index] * len(track.finish(end_s)))
    return shown


def display_end_s(times_s: Sequence[Fraction], last_duration_s: Fraction | None) -> Fraction:
    """When the last frame's display time ends.

    Args:
        times_s: Presentation times of all frames in seconds, at least one.
        last_duration_s: The last frame's own duration, if the container tells it; otherwise the
            mean distance of the frames is taken, and nothing for a single frame.
    """
    if last_duration_s is not None and last_duration_s > 0:
        return times_s[-1] + last_duration_s
    if len(times_s) < 2:
        return times_s[-1]
    return times_s[-1] + (times_s[-1] - times_s[0]) / (len(times_s) - 1)
