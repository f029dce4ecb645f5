"""What the user chooses of sampling: the rate, and how a video is cut into clips."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from tspcli.errors import UsageError

MOST_SAMPLES = 10**9
"""Two years at 15 samples a second; beyond, numbers no longer fit where they are stored."""


@dataclass(frozen=True)
class Sampling:
    """How a video is cut into clips. The defaults are those of the released TSP features.

    Attributes:
        frame_rate: Samples per second inside a clip.
        clip_length: Samples per clip.
        stride: Samples from one clip's start to the next's.
        grid_rate: Frames per second to which the video is standardised before sampling; 30 in the
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
                    option=name,
                    value=value,
                )
            if value > MOST_SAMPLES:
                raise UsageError(
                    f"{name.replace('_', ' ')} {value} is longer than any video.",
                    remedy=f"Give a number of frames up to {MOST_SAMPLES}, such as 16.",
                    option=name,
                    value=value,
                )
        if self.frame_rate > self.grid_rate:
            raise UsageError(
                f"The frame rate {float(self.frame_rate):g} is above the grid rate "
                f"{float(self.grid_rate):g}, so frames would repeat.",
                remedy=f"Give a grid rate of at least {float(self.frame_rate):g}.",
                option="frame_rate",
                value=self.frame_rate,
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
        """Complete clips of a standardised video of ``n_ticks`` frames; the tail is dropped."""
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

    def line(self) -> str:
        """The sampling in one line.

        >>> Sampling(frame_rate=Fraction(25), clip_length=32).line()
        'clips of 1.28 s (length 32) every 0.64 s (stride 16), 25 frames/s taken from a 30 Hz grid'
        """
        rate, grid = _number(self.frame_rate), _number(self.grid_rate)
        source = "straight from the video" if rate == grid else f"from a {grid} Hz grid"
        return (
            f"clips of {_number(self.clip_duration_s)} s (length {self.clip_length}) "
            f"every {_number(self.stride_s)} s (stride {self.stride}), {rate} frames/s taken "
            f"{source}"
        )

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


def _number(value: Fraction) -> str:
    return f"{float(value):.4g}"


def as_rate(value: Fraction | float | str, name: str = "rate") -> Fraction:
    """Turn a rate as people write it into an exact one.

    Args:
        value: A Fraction, an integer, a decimal string or a ratio such as ``"30000/1001"``. Floats
            are read as the decimal number they print as, so that 29.97 is 2997/100.
        name: What to call the value in an error.

    Raises:
        UsageError: If the value is not a positive number.
    """
    try:
        rate = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError, TypeError):
        rate = Fraction(0)
    if rate <= 0:
        raise UsageError(
            f"{name} {value!r} is not a positive number.",
            remedy="Give frames per second, such as 15, 12.5 or 30000/1001.",
            option=name,
            value=value,
        )
    return rate
