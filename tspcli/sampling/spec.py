"""What the user chooses of sampling: the rate, and how a video is cut into clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

from tspcli.errors import UsageError

MOST_SAMPLES = 10**9
"""Two years at 15 samples a second; beyond, numbers no longer fit where they are stored."""

NATIVE = "native"
"""How people write the rate of a sampling that takes the source's own frames."""

Tail = Literal["drop", "flush", "repeat", "zero"]
TAILS: tuple[Tail, ...] = get_args(Tail)
Align = Literal["start", "center"]
ALIGNS: tuple[Align, ...] = get_args(Align)


@dataclass(frozen=True)
class Sampling:
    """How a video is cut into clips. The defaults are those of the released TSP features.

    *Samples* are frames at ``frame_rate``, or every frame of the source (:meth:`native`). Clip i
    has its base at sample ``phase + i * stride`` and is made of the samples ``base + offset``.

    Attributes:
        frame_rate: Samples per second inside a clip; 0 if samples are the source's own frames and
            the rate is each video's (:attr:`is_native`).
        clip_length: Samples per clip.
        stride: Samples from one clip's base to the next's.
        grid_rate: Frames per second to which the video is standardised before sampling; 30 in the
            official recipe. Equal to ``frame_rate``, the video is sampled directly.
        offsets: The samples of a clip, counted from its base, ``clip_length`` of them in ascending
            order; they may be negative and repeat. Empty: consecutive, 0 .. ``clip_length`` - 1.
        phase: Base of the first clip.
        tail: Which clips there are at the end of a video. ``drop``: those that are complete.
            ``flush``: also a last one, moved back so that it ends with the video. ``repeat``: all
            whose base is in the video; samples outside are the first or the last one again.
            ``zero``: likewise, but samples outside are zeros in the encoder's input.
        need: Samples from its base on that a complete clip needs; 0: up to its last sample.
        extent: (first, end) of the samples that a row stands for, counted from its base, which
            gives the row's times. None: from the first sample to the end of the last, which lasts
            as long as the distance between samples.
    """

    frame_rate: Fraction = Fraction(15)
    clip_length: int = 16
    stride: int = 16
    grid_rate: Fraction = Fraction(30)
    offsets: tuple[int, ...] = ()
    phase: int = 0
    tail: Tail = "drop"
    need: int = 0
    extent: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.is_native:
            object.__setattr__(self, "frame_rate", as_rate(self.frame_rate, "frame rate"))
            object.__setattr__(self, "grid_rate", as_rate(self.grid_rate, "grid rate"))
        for name, least in (("clip_length", 1), ("stride", 1), ("phase", 0), ("need", 0)):
            _check_count(name, getattr(self, name), least)
        if self.frame_rate > self.grid_rate:
            raise UsageError(
                f"The frame rate {float(self.frame_rate):g} is above the grid rate "
                f"{float(self.grid_rate):g}, so frames would repeat.",
                remedy=f"Give a grid rate of at least {float(self.frame_rate):g}.",
                option="frame_rate",
                value=self.frame_rate,
            )
        self._check_rows()
        # One spelling for each sampling, so that equal ones compare equal.
        # Only then is there a list: a clip may be said to have a thousand million samples.
        if (
            self.offsets
            and self.offsets == tuple(range(len(self.offsets)))
            and (len(self.offsets) == self.clip_length)
        ):
            object.__setattr__(self, "offsets", ())
        if self.need == self.picks[-1] + 1:
            object.__setattr__(self, "need", 0)
        if self.extent == self._usual_extent():
            object.__setattr__(self, "extent", None)

    def _check_rows(self) -> None:
        if self.offsets and (
            len(self.offsets) != self.clip_length or list(self.offsets) != sorted(self.offsets)
        ):
            raise UsageError(
                f"The offsets {self.offsets} are not {self.clip_length} ascending numbers, one per "
                "frame of a clip.",
                option="offsets",
                value=self.offsets,
            )
        if self.tail not in TAILS:
            raise UsageError(
                f"There is no tail {self.tail!r}; there are {', '.join(TAILS)}.",
                option="tail",
                value=self.tail,
            )
        complete = self.tail in ("drop", "flush")
        if complete and self.phase + self.picks[0] < 0:
            raise UsageError(
                f"The first clip begins {-self.phase - self.picks[0]} frames before the video.",
                remedy="Give tail repeat or zero, or a larger phase.",
                option="tail",
                value=self.tail,
            )
        if self.need and (not complete or self.need <= self.picks[-1]):
            raise UsageError(
                f"A clip cannot need {self.need} samples: its last one is {self.picks[-1]} and its "
                f"tail is {self.tail}.",
                option="need",
                value=self.need,
            )
        if self.extent is not None and not self.extent[0] < self.extent[1]:
            raise UsageError(
                f"The extent {self.extent} is empty.", option="extent", value=self.extent
            )

    def _usual_extent(self) -> tuple[int, int]:
        if not self.offsets:
            return 0, self.clip_length
        picks = self.offsets
        gaps = {after - before for before, after in pairwise(picks)}
        width = max(gaps.pop() if len(gaps) == 1 else 1, 1)
        return picks[0], picks[-1] + width

    @classmethod
    def native(cls, clip_length: int, stride: int, **others: Any) -> Sampling:
        """A sampling of the source's own frames, whatever their rate."""
        return cls(Fraction(0), clip_length, stride, Fraction(0), **others)

    def at_rate(self, rate: Fraction) -> Sampling:
        """This sampling in a video of ``rate`` frames per second; only a native one changes.

        Its clips are those of the native one, and its times those of a video of constant rate.
        """
        return replace(self, frame_rate=rate, grid_rate=rate) if self.is_native else self

    @property
    def is_native(self) -> bool:
        """Whether samples are the source's own frames."""
        return self.frame_rate == 0 and self.grid_rate == 0

    @property
    def picks(self) -> Sequence[int]:
        """The samples of a clip, counted from its base."""
        return self.offsets or range(self.clip_length)

    @property
    def window(self) -> tuple[int, int]:
        """(first, end) of the samples that a row stands for, counted from its base."""
        return self.extent or self._usual_extent()

    @property
    def is_plain(self) -> bool:
        """Whether clips are consecutive samples from the first one on, each complete."""
        return not self.offsets and self.phase == 0 and self.tail == "drop" and self.need == 0

    @cached_property
    def step(self) -> Fraction:
        """Ticks from one sample to the next; 2 in the official recipe."""
        return Fraction(1) if self.is_native else self.grid_rate / self.frame_rate

    @property
    def is_regular(self) -> bool:
        """Whether samples fall on every ``step``-th tick, so that all clips share one series."""
        return self.step.denominator == 1

    @property
    def clip_duration_s(self) -> Fraction:
        """Seconds that a clip covers; 16/15 in the official recipe."""
        first, end = self.window
        return self._seconds(end - first)

    @property
    def stride_s(self) -> Fraction:
        """Seconds from one clip's start to the next's."""
        return self._seconds(self.stride)

    @property
    def center_offset(self) -> Fraction:
        """Samples from the video's start to the centre of the first clip; 8 in the official recipe.

        Row i's centre is at ``(i * stride + center_offset) / frame_rate`` seconds.
        """
        first, end = self.window
        return self.phase + Fraction(first + end, 2)

    @property
    def needed(self) -> int:
        """Samples from its base on that a clip needs to be complete."""
        return self.need or self.picks[-1] + 1

    def n_samples(self, n_ticks: int) -> int:
        """Samples in a standardised video of ``n_ticks`` frames.

        As the official code counts: ``ceil(n_ticks / step)`` where the step is whole, else
        ``floor(n_ticks / step)``.
        """
        if self.is_regular:
            return -(-n_ticks // self.step.numerator)
        return int(n_ticks / self.step)

    def n_clips(self, n_ticks: int) -> int:
        """Clips of a standardised video of ``n_ticks`` frames."""
        n_samples = self.n_samples(n_ticks)
        if self.tail in ("repeat", "zero"):
            return max(0, -(-(n_samples - self.phase) // self.stride))
        n_clips = self._n_complete(n_samples, self.needed)
        return n_clips + 1 if self._is_flushed(n_samples) else n_clips

    def n_ready(self, n_ticks: int) -> int:
        """Clips that need no later tick than the first ``n_ticks``, however long the video is."""
        complete = self.tail in ("drop", "flush")
        needed = self.needed if complete else max(self.picks[-1], 0) + 1
        return self._n_complete(self.n_samples(n_ticks), needed)

    def _n_complete(self, n_samples: int, needed: int) -> int:
        return max(0, (n_samples - needed - self.phase) // self.stride + 1)

    def _is_flushed(self, n_samples: int) -> bool:
        room = n_samples - self.needed
        late = room - self.phase
        return self.tail == "flush" and room >= 0 and (late < 0 or late % self.stride != 0)

    def base(self, clip: int, n_ticks: int | None = None) -> int:
        """The sample from which the offsets of a clip count.

        Args:
            clip: The clip.
            n_ticks: Ticks of the whole video, where the end may have moved its last clip back.
        """
        if n_ticks is not None and self.tail == "flush":
            n_samples = self.n_samples(n_ticks)
            if self._is_flushed(n_samples) and clip == self._n_complete(n_samples, self.needed):
                return n_samples - self.needed
        return self.phase + clip * self.stride

    def sample_tick(self, sample: int) -> int:
        """The tick that a sample shows when samples are counted from the video's start."""
        return sample * self.step.numerator // self.step.denominator

    def clip_ticks(self, clip: int, n_ticks: int | None = None) -> tuple[int, ...]:
        """The ticks of one clip, ``clip_length`` of them; -1 stands for a sample of zeros.

        Where the step is not whole the official code starts its floor afresh at each clip's first
        frame, and so does this.

        Args:
            clip: The clip.
            n_ticks: Ticks of the whole video, to which the tail applies; None if its end is not
                known yet.
        """
        base = self.sample_tick(self.base(clip, n_ticks))
        ticks = (base + self.sample_tick(offset) for offset in self.picks)
        if self.tail in ("drop", "flush"):
            return tuple(ticks)
        last = None if n_ticks is None else self.sample_tick(self.n_samples(n_ticks) - 1)
        if self.tail == "zero":
            return tuple(-1 if t < 0 or (last is not None and t > last) else t for t in ticks)
        return tuple(max(0, t if last is None else min(t, last)) for t in ticks)

    def clip_start_s(self, clip: int) -> Fraction:
        """Start of a clip in seconds after the first frame."""
        return self._seconds(self.phase + clip * self.stride + self.window[0])

    def clip_center_s(self, clip: int) -> Fraction:
        """Centre of a clip in seconds after the first frame: ``(clip * stride + 8) / 15``."""
        return self._seconds(clip * self.stride + self.center_offset)

    def clip_end_s(self, clip: int) -> Fraction:
        """End of a clip in seconds after the first frame."""
        return self._seconds(self.phase + clip * self.stride + self.window[1])

    def line(self, *, strided: bool = True) -> str:
        """The sampling in one line, with the stride or, where clips are drawn at will, without.

        >>> Sampling(frame_rate=Fraction(25), clip_length=32).line()
        'clips of 1.28 s (length 32) every 0.64 s (stride 16), 25 frames/s taken from a 30 Hz grid'
        >>> Sampling.native(16, 4, phase=2, offsets=tuple(range(-8, 8)), tail="repeat").line()
        "clips of 16 frames every 4 of the video's own, frames -8 … 7 around frame 2, tail: repeat"
        """
        details = ""
        if self.offsets:
            about = (
                f"around frame {self.phase}" if self.picks[0] < 0 else f"from frame {self.phase}"
            )
            details = f", frames {self.picks[0]} … {self.picks[-1]} {about}"
        elif self.phase:
            details = f", from frame {self.phase}"
        details += "" if self.tail == "drop" else f", tail: {self.tail}"
        if self.is_native:
            clips = f"clips of {self.clip_length} frames every {self.stride}"
            return f"{clips} of the video's own{details}"
        rate, grid = _number(self.frame_rate), _number(self.grid_rate)
        source = "straight from the video" if rate == grid else f"from a {grid} Hz grid"
        every = f" every {_number(self.stride_s)} s (stride {self.stride})" if strided else ""
        return (
            f"clips of {_number(self.clip_duration_s)} s (length {self.clip_length})"
            f"{every}, {rate} frames/s taken {source}{details}"
        )

    def _seconds(self, samples: Fraction | int) -> Fraction:
        assert not self.is_native, "a native sampling has the times of a video, see at_rate"
        return samples / self.frame_rate

    def to_dict(self) -> dict[str, Any]:
        """The sampling as plain values; rates as exact strings (``"15"``, ``"30000/1001"``).

        What is not said has its default.
        """
        values: dict[str, Any] = {
            "frame_rate": NATIVE if self.is_native else str(self.frame_rate),
            "clip_length": self.clip_length,
            "stride": self.stride,
            "grid_rate": NATIVE if self.is_native else str(self.grid_rate),
        }
        others = {
            "offsets": list(self.offsets),
            "phase": self.phase,
            "tail": "" if self.tail == "drop" else self.tail,
            "need": self.need,
            "extent": None if self.extent is None else list(self.extent),
        }
        return values | {name: value for name, value in others.items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sampling:
        """The inverse of :meth:`to_dict`."""
        native = values["frame_rate"] == NATIVE
        extent = values.get("extent")
        return cls(
            frame_rate=Fraction(0) if native else as_rate(values["frame_rate"], "frame rate"),
            clip_length=int(values["clip_length"]),
            stride=int(values["stride"]),
            grid_rate=Fraction(0) if native else as_rate(values["grid_rate"], "grid rate"),
            offsets=tuple(int(offset) for offset in values.get("offsets", ())),
            phase=int(values.get("phase", 0)),
            tail=values.get("tail", "drop"),
            need=int(values.get("need", 0)),
            extent=None if extent is None else (int(extent[0]), int(extent[1])),
        )


def spread_offsets(
    clip_length: int, *, interval: int = 1, window: int | None = None, align: Align = "start"
) -> dict[str, Any]:
    """The ``offsets`` and ``extent`` of a :class:`Sampling` whose clips are not consecutive.

    Args:
        clip_length: Samples per clip, k.
        interval: Samples from one to the next, g: the offsets are ``g * j``.
        window: Spread the clip over so many samples instead, W, from the first to the last:
            ``floor(j * (W - 1) / (k - 1))``, and the middle one for a clip of one sample.
        align: ``start``: offsets count from the clip's first sample; ``center``: from its middle,
            sample ``k // 2`` of a clip at an interval, ``W // 2`` of a window.
    """
    if window is None:
        picks = [interval * j for j in range(clip_length)]
        width, middle = interval * clip_length, interval * (clip_length // 2)
    else:
        last = clip_length - 1
        picks = [j * (window - 1) // last for j in range(clip_length)] if last else [window // 2]
        width, middle = window, window // 2
    shift = middle if align == "center" else 0
    return {"offsets": tuple(p - shift for p in picks), "extent": (-shift, width - shift)}


def _check_count(name: str, value: Any, least: int) -> None:
    spelled = name.replace("_", " ")
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = "positive whole number" if least else "whole number of at least 0"
        raise UsageError(
            f"{spelled} {value!r} is not a {kind}.",
            remedy="Give a number of frames, such as 16.",
            option=name,
            value=value,
        )
    if value > MOST_SAMPLES:
        raise UsageError(
            f"{spelled} {value} is longer than any video.",
            remedy=f"Give a number of frames up to {MOST_SAMPLES}, such as 16.",
            option=name,
            value=value,
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
