"""The frames of a video that clips are made of, and one clip read from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.clock import FrameTrack, TickTrack, display_end_s, grid_tick
from tspcli.sampling.pixels import FrameSpec
from tspcli.sampling.windows import NeededTicks, Seconds, rate_or_times
from tspcli.video.source import Frame, VideoSource

MAX_STILL_S = 6 * 3600
"""The longest time in seconds for which a frame may be shown: one wrong bit makes it centuries."""

_WITHIN_A_TICK = Fraction(1, 20)
"""The largest share of frames that a varying rate may leave without a tick, unreported."""


@dataclass(frozen=True)
class SampledFrame:
    """A source frame that at least one clip needs.

    Attributes:
        ticks: The needed ticks at which it is shown, ascending, at least one.
        pts_s: Its time in seconds on the file's clock.
        frame: The frame; its picture is valid until the next one is taken.
    """

    ticks: tuple[int, ...]
    pts_s: Fraction
    frame: Frame


class SampledFrames:
    """The frames of one video that clips are made of, each once, in time order.

    Memory does not depend on the video's length. The attributes are complete after the iteration.
    The number of clips is known only then, so the frames after the end of the last complete clip
    come as well.

    Args:
        source: The video.
        sampling: Which clips.
        on_frame: Called after each source frame, sampled or not.

    Attributes:
        n_ticks: Number of ticks of the video, for ``Sampling.n_clips``.
        n_frames: Number of frames of the source, sampled or not.
        start_s, end_s: When the first frame is shown and when the display of the last one ends,
            seconds on the file's clock.
        native_rate: Of a native sampling: frames per second of the video; the mean if it varies.
        frame_times_s: Of a native sampling, if the rate varies: when each frame is shown and when
            the video ends, seconds after the first frame, shape (n_ticks + 1,).
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
        self.native_rate: Fraction | None = None
        self.frame_times_s: Seconds | None = None
        self._on_frame = on_frame
        self._needed = NeededTicks(sampling)
        self._origin: int | None = None

    def __iter__(self) -> Iterator[SampledFrame]:
        native = self.sampling.is_native
        track = FrameTrack() if native else TickTrack(self.sampling.grid_rate)
        shift_s = self.source.info.origin_s
        shown: Frame | None = None
        last: Frame | None = None
        unshown = _Unshown()
        # Which frames a native sampling needs depends on their number, not on their time.
        for frame in self.source.frames(wanted=None if native else self._is_wanted):
            self.n_frames += 1
            last = frame
            if not native:
                unshown.push(self._tick(frame.pts_s), frame.pts_s)
            if self._on_frame is not None:
                self._on_frame()
            if not frame.has_picture:
                # No clip needs its ticks. If the needed frames after it turn out to be damaged,
                # their ticks show the last picture before them.
                continue
            time_s = frame.pts_s - shift_s if shift_s else frame.pts_s
            if shown is not None:
                self._check_still(frame.pts_s - shown.pts_s)
            ticks = track.push(time_s)
            if shown is None:
                self._origin = 0 if native else grid_tick(time_s, self.sampling.grid_rate)
                self.start_s = frame.pts_s
            elif needed := self._needed.among(ticks):
                yield SampledFrame(needed, shown.pts_s, shown)
            shown = frame
        if shown is None or last is None:
            raise VideoError("no-frames", path=self.source.info.path)
        if not native:
            fps, rate = self.source.info.fps, self.sampling.grid_rate
            self.source.warnings.extend(unshown.warnings(self.n_frames, fps, rate))
        self.end_s = self._display_end_s(last)
        self._check_still(self.end_s - shown.pts_s)
        ticks = track.finish(self.end_s - shift_s)
        if needed := self._needed.among(ticks, at_end=True):
            yield SampledFrame(needed, shown.pts_s, shown)
        self.n_ticks = track.n_ticks
        if isinstance(track, FrameTrack):
            self.native_rate, self.frame_times_s = rate_or_times(
                np.array(track.times_s), self.source.info.fps
            )

    def _check_still(self, shown_s: Fraction) -> None:
        """Refuse a frame that a damaged time shows for too long to be true."""
        if shown_s > MAX_STILL_S:
            raise VideoError(
                "damaged",
                f"one frame would be shown for {float(shown_s):.0f} s, so its time must be wrong",
                path=self.source.info.path,
            )

    def _display_end_s(self, last: Frame) -> Fraction:
        if self.n_frames == 1:
            return display_end_s([last.pts_s], last.duration_s)
        # The mean distance of the frames needs only the ends of the series.
        end_s = display_end_s([last.pts_s], last.duration_s)
        if end_s == last.pts_s:
            end_s += (last.pts_s - self.start_s) / (self.n_frames - 1)
        return end_s

    def _is_wanted(self, pts_s: Fraction, next_s: Fraction) -> bool:
        if self._origin is None:
            return True
        first, end = self._tick(pts_s) - self._origin, self._tick(next_s) - self._origin
        first = max(first, 0)
        # A longer range always has a needed tick, and a damaged time may make it endless.
        return bool(self._needed.among(range(first, min(end, first + self._needed.longest_gap))))

    def _tick(self, time_s: Fraction) -> int:
        """``grid_tick`` without Fractions, because it is computed for every frame.

        The tick nearest to the time after the container's start, halves away from zero.
        """
        rate, shift_s = self.sampling.grid_rate, self.source.info.origin_s
        over = time_s.numerator * shift_s.denominator - shift_s.numerator * time_s.denominator
        numerator = over * rate.numerator
        denominator = time_s.denominator * shift_s.denominator * rate.denominator
        magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
        return magnitude if numerator >= 0 else -magnitude


class _Unshown:
    """Counts the frames of a video that show no tick, by reason.

    A frame that comes within the same tick as the one before it takes its place. That is expected
    where there are more frames than ticks, and happens now and then where the rate varies.
    """

    def __init__(self) -> None:
        self._n_late = self._n_within_a_tick = 0
        self._tick: int | None = None
        self._time_s = Fraction(0)

    def push(self, tick: int, time_s: Fraction) -> None:
        """Take the next frame's tick and time."""
        if self._tick is None or tick > self._tick:
            self._tick, self._time_s = tick, time_s
        elif time_s > self._time_s:
            self._time_s = time_s
            self._n_within_a_tick += 1
        else:
            self._n_late += 1

    def warnings(self, n_frames: int, fps: Fraction | None, grid_rate: Fraction) -> Iterator[str]:
        """What the times and the announced frame rate do not explain."""
        if self._n_late:
            yield (
                f"clock: {self._n_late} of {n_frames} frames come no later than the frame before, "
                "so as many are in no row"
            )
        if (
            fps is not None
            and fps <= grid_rate
            and self._n_within_a_tick > n_frames * _WITHIN_A_TICK
        ):
            yield (
                f"clock: {self._n_within_a_tick} of {n_frames} frames come within 1/{grid_rate} s "
                f"of the frame before, although the file announces {float(fps):g} frames/s, so as "
                "many are in no row"
            )


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

    The clip's first tick is ``floor(start_s * grid_rate)``, counted from the video's first frame.
    Where the video ends before the clip, its last frame is repeated.

    Args:
        source: The video.
        start_s: Start of the clip in seconds after the video's first frame.
        sampling: Rate and length of the clip.
        spec: Size, crop and dtype of the frames.
        late_s: Seconds after the end of the video at which a clip may still begin; None: any time.

    Returns:
        Shape (clip_length, h, w, 3), uint8 or float32 in 0..255.

    Raises:
        VideoError: If nothing can be decoded there, or the clip begins too late.
    """
    rate, shift_s = sampling.grid_rate, source.info.origin_s
    origin = grid_tick(source.first_pts_s - shift_s, rate)
    first = origin + int(max(Fraction(start_s), Fraction(0)) * rate // 1)
    ticks = [first + sampling.sample_tick(j) for j in range(sampling.clip_length)]

    def is_wanted(pts_s: Fraction, next_s: Fraction) -> bool:
        begin, end = grid_tick(pts_s - shift_s, rate), grid_tick(next_s - shift_s, rate)
        return any(begin <= tick < end for tick in ticks) or begin <= first < end

    clip: npt.NDArray[Any] | None = None
    n_filled = 0
    shown: Frame | None = None
    # The frame shown at the time of the first tick is not after that tick; frames that follow
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
                f"its frames end at {float(end_s):.2f} s, before a clip at {float(start_s):.2f} s",
                path=source.info.path,
            )
    if n_filled < len(ticks):
        picture = shown.scaled(spec)
        if clip is None:
            clip = np.empty((len(ticks), *picture.shape), picture.dtype)
        clip[n_filled:] = picture
    assert clip is not None
    return clip
