"""Clocks that step, corrected as ffmpeg does: packet by packet, before decoding.

The times of MPEG-TS, MPEG-PS and VOB files start again or jump where segments were joined or a
recorder was restarted. ffmpeg predicts the decoding time of the next packet of each stream. If a
packet's time is far from that, it shifts all later times of all streams so that the packet meets
its prediction. Sound takes part: if it comes first after a join, its prediction decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import av
import av.error
from av.stream import Disposition

from tspcli.core.text import counted

_AHEAD_US = 10_000_000
"""ffmpeg's dts_delta_threshold: a step ahead by no more than this is a gap in the recording."""
_BACK_US = 100_000
_DEFAULT_SCORE, _PACKETS_SCORE = 5_000_000, 100_000_000
_GENERATE_PTS, _TS_DISCONT = 0x1, 0x200
"""FFmpeg's AVFMT_FLAG_GENPTS and AVFMT_TS_DISCONT."""
_PROBES, _UNEVEN = 8, 4
"""At how many places a file is probed, and how many times as long as usual a part may last."""


def may_step(container: Any) -> bool:
    """Whether FFmpeg says that clocks of this format may step."""
    return bool(int(container.format.flags) & _TS_DISCONT)


def timed_streams(container: Any, video: Any) -> list[Any]:
    """The streams whose packets decide how a clock is corrected: those that ffmpeg would convert.

    Args:
        container: The open file, of a format whose clock may step.
        video: The video stream that is decoded.

    Returns:
        That stream, and the audio stream that ffmpeg takes: of those with packets the default one,
        then the one with the most channels.
    """
    sounds = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return [video, *sorted(sounds, key=_audio_score, reverse=True)[:1]]


def _audio_score(stream: Any) -> int:
    score = int(stream.codec_context.channels)
    score += _DEFAULT_SCORE if stream.disposition & Disposition.default else 0
    return score + (_PACKETS_SCORE if stream.start_time is not None else 0)


def start_us(container: Any, streams: Iterable[Any]) -> int:
    """When the file starts, in microseconds, with regard only to the given streams."""
    starts = [
        _nearest(
            stream.start_time * stream.time_base.numerator * 1_000_000,
            stream.time_base.denominator,
        )
        for stream in streams
        if stream.start_time is not None
    ]
    return max([container.start_time or 0, *([min(starts)] if starts else [])])


class ClockSteps:
    """The corrected times of one file's packets.

    Args:
        container: The open file.
        streams: Those of :func:`timed_streams`.

    Attributes:
        n_back, n_ahead: Number of steps corrected so far.
        largest_s: The largest of them in seconds, regardless of its direction.
    """

    def __init__(self, container: Any, streams: Sequence[Any]) -> None:
        # PyAV has FFmpeg guess missing presentation times, wrongly at a step; ffmpeg does not.
        container.flags = int(container.flags) & ~_GENERATE_PTS
        self.n_back = self.n_ahead = 0
        self.largest_s = 0.0
        self._shift_us = 0
        self._last_us: int | None = None
        origin_us = start_us(container, streams)
        self._clocks = {stream.index: _StreamClock(stream, origin_us) for stream in streams}

    @property
    def n_steps(self) -> int:
        """Number of steps corrected so far."""
        return self.n_back + self.n_ahead

    def corrected(self, packets: Iterable[Any]) -> Iterator[Any]:
        """The same packets with times that do not step.

        Args:
            packets: Those of all the streams, in the order of the file; None is passed on.
        """
        for packet in packets:
            if packet is not None and packet.size:
                self._correct(packet)
            yield packet

    def warning(self) -> str | None:
        """What was corrected; None if nothing was."""
        if not self.n_steps:
            return None
        steps = counted(self.n_steps, "step")
        return (
            f"clock: {steps} corrected ({self.n_back} back, {self.n_ahead} ahead; "
            f"the largest {self.largest_s:.1f} s)"
        )

    def _correct(self, packet: Any) -> None:
        clock = self._clocks[packet.stream_index]
        shift = clock.units(self._shift_us)
        if packet.dts is not None:
            time_us = clock.time_us(packet.dts + shift)
            expected_us = clock.next_us
            if expected_us is None:
                # The first packet of a stream is held against those of the others.
                expected_us = time_us if self._last_us is None else self._last_us
                stepped = abs(time_us - expected_us) > _AHEAD_US
            else:
                # Where a packet's duration is known, ffmpeg's latest time is its prediction.
                stepped = abs(time_us - expected_us) > _AHEAD_US or time_us + _BACK_US < expected_us
            if stepped:
                delta_us = time_us - expected_us
                self._shift_us -= delta_us
                shift -= clock.units(delta_us)
                self.n_back += delta_us < 0
                self.n_ahead += delta_us > 0
                self.largest_s = max(self.largest_s, abs(delta_us) / 1e6)
            packet.dts += shift
            self._last_us = clock.time_us(packet.dts)
        if packet.pts is not None:
            packet.pts += shift
        clock.advance(packet)


class _StreamClock:
    """When the next packet of one stream is expected, in microseconds since the file's start."""

    def __init__(self, stream: Any, origin_us: int) -> None:
        context, base = stream.codec_context, Fraction(stream.time_base)
        self._numerator, self._denominator = base.numerator * 1_000_000, base.denominator
        self._start = self.units(origin_us)
        self._samples_us = self._frame_us = self._first_us = 0
        if stream.type == "audio":
            # ffmpeg counts the samples that a packet is decoded to.
            if context.frame_size and context.sample_rate:
                self._samples_us = context.frame_size * 1_000_000 // context.sample_rate
        else:
            if rate := context.framerate or stream.average_rate:
                self._frame_us = int(1_000_000 / Fraction(rate))
            if rate := stream.average_rate:
                self._first_us = -int(int(context.has_b_frames) * 1_000_000 / Fraction(rate))
        self._began = False
        self.next_us: int | None = None

    def units(self, time_us: int) -> int:
        """Microseconds in units of the stream."""
        return _nearest(time_us * self._denominator, self._numerator)

    def time_us(self, dts: int) -> int:
        """A decoding time of the stream in microseconds since the file's start."""
        return _nearest((dts - self._start) * self._numerator, self._denominator)

    def advance(self, packet: Any) -> None:
        """Predict the time of the packet after this one, whose times are corrected."""
        if packet.dts is not None:
            self.next_us = self.time_us(packet.dts)
        elif not self._began:
            self.next_us = self._first_us
        self._began = True
        lasts_us = self._samples_us
        if not lasts_us and packet.duration:
            lasts_us = _nearest(packet.duration * self._numerator, self._denominator)
        lasts_us = lasts_us or self._frame_us
        if not lasts_us:
            self.next_us = None
        elif self.next_us is not None:
            self.next_us += lasts_us


@lru_cache(maxsize=512)
def read_clock(name: str, stream_index: int, stamp: tuple[int, int] | None) -> WholeClock:
    """Read all packets of a file whose clock may step, for what needs to know before decoding.

    Args:
        name: The path for FFmpeg.
        stream_index: The video stream.
        stamp: The file's :func:`~tspcli.video.source.file_stamp`: a file is read once.
    """
    first: int | None = None
    end = 0
    with av.open(name, metadata_errors="replace") as container:
        video: Any = container.streams[stream_index]
        streams = timed_streams(container, video)
        steps = ClockSteps(container, streams)
        with suppress(av.error.FFmpegError, OSError, IndexError):
            for packet in steps.corrected(container.demux(streams)):
                if packet.stream_index == stream_index and packet.pts is not None and packet.size:
                    first = packet.pts if first is None else min(first, packet.pts)
                    end = max(end, packet.pts + (packet.duration or 0))
        lasted = 0 if first is None else end - first
        return WholeClock(steps.n_steps, lasted * Fraction(video.time_base))


class WholeClock(NamedTuple):
    """What all packets of a file say about its clock.

    Attributes:
        n_steps: Number of steps.
        duration_s: How long the video lasts when they are corrected, in seconds.
    """

    n_steps: int
    duration_s: Fraction


def seems_stepped(container: Any, video: Any, n_bytes: int) -> bool:
    """Whether times read at a few places of a file do not grow as its clock should.

    It costs as much as a few seeks. Steps that change the duration little may be overlooked.

    Args:
        container: The open file, whose position is lost.
        video: Its video stream.
        n_bytes: The file's size.
    """
    times: list[int] = []
    for place in range(_PROBES):
        with suppress(av.error.FFmpegError, OSError, IndexError):
            offset = n_bytes * place // _PROBES
            container.seek(offset, unsupported_byte_offset=True)
            for packet in container.demux(video):
                if packet.dts is not None:
                    times.append(packet.dts)
                    break
    base = Fraction(video.time_base)
    gaps_s = sorted(float((after - before) * base) for before, after in pairwise(times))
    if not gaps_s:
        return False
    usual_s = gaps_s[len(gaps_s) // 2]
    return gaps_s[0] <= 0 or gaps_s[-1] - usual_s > max(_AHEAD_US / 1e6, _UNEVEN * usual_s)


def _nearest(numerator: int, denominator: int) -> int:
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude
