"""From a source's frames to those that clips are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.clock import TickTrack, display_end_s, grid_tick
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.windows import NeededTicks
from tspcli.video.source import Frame, VideoSource

MAX_STILL_S = 6 * 3600
"""No frame of a sound file is shown for longer; one bit of its time can make it centuries."""


@dataclass(frozen=True)
class SampledFrame:
    """A source frame that some clip needs.

    Attributes:
        ticks: The needed ticks that show it, ascending, at least one.
        pts_s: Its time in seconds on the file's clock.
        frame: The frame; its picture is valid until the next one is taken.
    """

    ticks: tuple[int, ...]
    pts_s: Fraction
    frame: Frame


class SampledFrames:
    """The frames of one video that clips are made of, each once, in time order.

    Streaming: memory does not depend on the video's length. The attributes are complete when the
    iteration has ended. How many clips there are is known only then, so frames after the last
    whole clip's end come too.

    Args:
        source: The video.
        sampling: Which clips.
        on_frame: Called after each source frame, sampled or not.

    Attributes:
        n_ticks: Ticks of the whole video, to be given to ``Sampling.n_clips``.
        n_frames: Frames of the source, whether sampled or not.
        start_s, end_s: When the first frame is shown and when the display of the last ends, in
            seconds on the file's clock.
    """

    def __init__(
        self,
        source: VideoSource,
        sampling: Sampling,
        *,
        on_frame: Callable[[], object] | None = None,
    ) -> None:
        self.source = source
        self.sampling = sampling
        self.n_ticks = 0
        self.n_frames = 0
        self.start_s = Fraction(0)
        self.end_s = Fraction(0)
        self._on_frame = on_frame
        self._needed = NeededTicks(sampling)
        self._origin: int | None = None

    def __iter__(self) -> Iterator[SampledFrame]:
        track = TickTrack(self.sampling.grid_rate)
        shift_s = self.source.info.origin_s
        shown: Frame | None = None
        last: Frame | None = None
        for frame in self.source.frames(wanted=self._is_wanted):
            self.n_frames += 1
            last = frame
            if self._on_frame is not None:
                self._on_frame()
            if not frame.has_picture:
                # Nobody needs the ticks that it shows. If the needed ones after it turn out to be
                # damaged, they show the last picture that there is.
                continue
            time_s = frame.pts_s - shift_s if shift_s else frame.pts_s
            ticks = self._believable(track.push(time_s))
            if shown is None:
                self._origin = grid_tick(time_s, self.sampling.grid_rate)
                self.start_s = frame.pts_s
            elif needed := self._needed.among(ticks):
                yield SampledFrame(needed, shown.pts_s, shown)
            shown = frame
        if shown is None or last is None:
            raise VideoError("no-frames", path=self.source.info.path)
        self.end_s = self._display_end_s(last)
        if needed := self._needed.among(self._believable(track.finish(self.end_s - shift_s))):
            yield SampledFrame(needed, shown.pts_s, shown)
        self.n_ticks = track.n_ticks

    def _believable(self, ticks: range) -> range:
        """The ticks that one frame shows, unless a damaged time stretches them beyond belief."""
        shown_s = len(ticks) / self.sampling.grid_rate
        if shown_s > MAX_STILL_S:
            raise VideoError(
                "damaged",
                f"one frame would be shown for {float(shown_s):.0f} s; its time is not believed",
                path=self.source.info.path,
            )
        return ticks

    def _display_end_s(self, last: Frame) -> Fraction:
        if self.n_frames == 1:
            return display_end_s([last.pts_s], last.duration_s)
        # Only the ends of the series matter to the mean distance of its frames.
        end_s = display_end_s([last.pts_s], last.duration_s)
        if end_s == last.pts_s:
            end_s += (last.pts_s - self.start_s) / (self.n_frames - 1)
        return end_s

    def _is_wanted(self, pts_s: Fraction, next_s: Fraction) -> bool:
        if self._origin is None:
            return True
        first, end = self._tick(pts_s) - self._origin, self._tick(next_s) - self._origin
        first = max(first, 0)
        # Any stretch longer than that has a needed tick; a damaged time may make it endless.
        return bool(self._needed.among(range(first, min(end, first + self._needed.longest_gap))))

    def _tick(self, time_s: Fraction) -> int:
        """``grid_tick`` in whole numbers, without making Fractions: this is asked for every frame.

        The nearest tick to the time less the container's start, halves away from zero.
        """
        rate, shift_s = self.sampling.grid_rate, self.source.info.origin_s
        over = time_s.numerator * shift_s.denominator - shift_s.numerator * time_s.denominator
        numerator = over * rate.numerator
        denominator = time_s.denominator * shift_s.denominator * rate.denominator
        magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
        return magnitude if numerator >= 0 else -magnitude


def sampled_frames(source: VideoSource, sampling: Sampling) -> SampledFrames:
    """The frames of ``source`` that clips of ``sampling`` are made of.

    Example:
        >>> frames = sampled_frames(open_source("v.mp4"), Sampling())      # doctest: +SKIP
        >>> [frame.ticks for frame in frames][:3], frames.n_ticks          # doctest: +SKIP
        ([(0,), (2,), (4,)], 541)
    """
    return SampledFrames(source, sampling)


def read_clip(
    source: VideoSource,
    start_s: Fraction | float,
    sampling: Sampling,
    spec: FrameSpec,
    *,
    late_s: Fraction | None = None,
) -> npt.NDArray[Any]:
    """Read one clip from anywhere in a video.

    The clip's first tick is ``floor(start_s * grid_rate)``, counted from the video's first frame;
    where the video ends before the clip does, its last frame is repeated.

    Args:
        source: The video.
        start_s: Start of the clip, seconds after the video's first frame, not negative.
        sampling: Rate and length of the clip.
        spec: Size, crop and dtype of the frames.
        late_s: How long after the end of the video's pictures a clip may begin; None for any time.

    Returns:
        Shape (clip_length, h, w, 3), uint8 or float32 in 0..255.

    Raises:
        VideoError: If nothing can be decoded there, or the clip begins too late.
    """
    rate, shift_s = sampling.grid_rate, source.info.origin_s
    origin = grid_tick(first_pts_s(source) - shift_s, rate)
    first = origin + int(max(Fraction(start_s), Fraction(0)) * rate // 1)
    ticks = [first + sampling.sample_tick(j) for j in range(sampling.clip_length)]

    def is_wanted(pts_s: Fraction, next_s: Fraction) -> bool:
        begin, end = grid_tick(pts_s - shift_s, rate), grid_tick(next_s - shift_s, rate)
        return any(begin <= tick < end for tick in ticks) or begin <= first < end

    clip: npt.NDArray[Any] | None = None
    n_filled = 0
    shown: Frame | None = None
    # The frame shown at the first tick's time is not after that tick, and the ones that follow
    # within half a tick replace it.
    for frame in source.frames(Fraction(first) / rate + shift_s, wanted=is_wanted):
        if not frame.has_picture:
            continue
        tick = grid_tick(frame.pts_s - shift_s, rate)
        if shown is not None and n_filled < len(ticks) and tick > ticks[n_filled]:
            picture = shown.scaled(spec)
            if clip is None:
                clip = np.empty((len(ticks), *picture.shape), picture.dtype)
            while n_filled < len(ticks) and ticks[n_filled] < tick:
                clip[n_filled] = picture
                n_filled += 1
        if n_filled == len(ticks):
            break
        shown = frame
    if shown is None:
        raise VideoError("no-frames", f"at {float(start_s):.3f} s", path=source.info.path)
    if n_filled == 0 and late_s is not None:
        end_s = display_end_s([shown.pts_s], shown.duration_s) - shift_s
        if Fraction(first) / rate > end_s + late_s:
            raise VideoError(
                "damaged",
                f"its pictures end at {float(end_s):.2f} s, {float(start_s):.2f} s is asked for",
                path=source.info.path,
            )
    if n_filled < len(ticks):
        picture = shown.scaled(spec)
        if clip is None:
            clip = np.empty((len(ticks), *picture.shape), picture.dtype)
        clip[n_filled:] = picture
    assert clip is not None
    return clip


def first_pts_s(source: VideoSource) -> Fraction:
    """The time of a video's first frame in seconds, decoded once and remembered."""
    known = getattr(source, "_first_pts_s", None)
    if known is None:
        known = next(iter(source.frames())).pts_s
        source._first_pts_s = known  # type: ignore[attr-defined]  # a note of this module's
    return known
