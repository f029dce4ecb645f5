"""What a video file says about itself, read with PyAV: streams, facts, packet times, missing ends.

In order: opening a container, choosing its video stream and describing it; the times of packets
(looking ahead, and guessing what a careless muxer left out); whether a file ends before the end
that it announces. The last matters because a download that broke off decodes without an error.
Some containers announce a duration per stream, which settles it. Matroska, WebM, FLV and ASF
announce one for all streams together, and the sound may last longer than the pictures; there a
file counts as cut off only if none of its streams comes near that end. AVI has the number of frames
in its header. MPEG streams, Ogg and raw video announce nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from tspcli.errors import VideoError
from tspcli.sampling.clock import round_half_away
from tspcli.video.decoders import clock_steps
from tspcli.video.source import VideoInfo, looks_like_mp4

_DEFAULT_SCORE, _PACKETS_SCORE = 5_000_000, 100_000_000
_MAX_AHEAD = 64
"""Packets that are read ahead at most to find out which picture comes next."""
_END = object()
_ANNOUNCE_ONE_DURATION = {"matroska", "webm", "flv", "asf"}
"""Where FFmpeg reports the duration of the file as that of each stream."""
_TOLERANCE_S = Fraction(1)
_TOLERANCE = Fraction(1, 50)
"""A file that ends early by no more than the larger of the two counts as complete."""


def open_container(name: str, path: str) -> Any:
    """Open a file.

    Args:
        name: The path for FFmpeg.
        path: The path for error messages.

    Raises:
        VideoError: With its reason, if it cannot be opened.
    """
    try:
        return av.open(name, metadata_errors="replace")
    except MemoryError as error:
        raise VideoError("out-of-memory", str(error), path=path) from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise VideoError("unsupported", str(error), path=path) from error
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
        if looks_like_mp4(name):
            raise VideoError(
                "damaged",
                "an MP4 file whose index (the moov box) is missing or broken, as when a "
                "download was cut off",
                path=path,
            ) from error
        raise VideoError("not-a-video", path=path) from error


def pick_stream(container: Any, path: str) -> Any:
    """The video stream that ffmpeg takes; never cover art or a track of thumbnails.

    ffmpeg's score is the number of pixels, more for the default stream, and much more for one of
    which it has seen packets.

    Raises:
        VideoError: ``no-video-stream`` or ``not-a-video``, if there is no such stream.
    """
    best, best_score = None, -1
    for stream in container.streams.video:
        context = stream.codec_context
        if _is_cover_art(stream) or context is None:
            continue
        score = context.width * context.height
        if stream.disposition & Disposition.default:
            score += _DEFAULT_SCORE
        if stream.start_time is not None:
            score += _PACKETS_SCORE
        if score > best_score:
            best, best_score = stream, score
    if best is not None:
        return best
    if len(container.streams) and not container.streams.video:
        raise VideoError("no-video-stream", path=path)
    if container.streams.video:
        raise VideoError("no-video-stream", "it has no video other than cover art", path=path)
    raise VideoError("not-a-video", "the file holds no stream", path=path)


class Orientation(NamedTuple):
    """How a coded picture becomes upright: mirrored left to right if so, then rotated.

    Attributes:
        rotation_deg: Degrees clockwise: 0, 90, 180 or 270.
        mirrored: Whether it is mirrored first.
        ignored_deg: An angle between those, which is not applied; 0 if there is none.
        exact: Whether the angle needed no rounding.
    """

    rotation_deg: int = 0
    mirrored: bool = False
    ignored_deg: int = 0
    exact: bool = True

    def apply(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The upright picture of a coded one, both (H, W, 3)."""
        if self.mirrored:
            picture = picture[:, ::-1]
        if self.rotation_deg:
            picture = np.rot90(picture, -(self.rotation_deg // 90))
        return np.ascontiguousarray(picture)


UPRIGHT = Orientation()


def orientation_of(matrix: bytes | None) -> Orientation:
    """The orientation that a display matrix asks for, by ffmpeg's rules.

    ffmpeg rounds the angle to whole degrees, so that a nearly exact quarter turn is one.

    Args:
        matrix: Nine 32-bit integers in native byte order, row by row; None if there is no matrix.
    """
    if matrix is None:
        return UPRIGHT
    m = np.frombuffer(matrix, np.int32, count=9).astype(float)
    scale = math.hypot(m[0], m[3]), math.hypot(m[1], m[4])
    if not all(scale):
        return UPRIGHT
    angle = math.degrees(math.atan2(m[1] / scale[1], m[0] / scale[0]))
    turned_deg, exact = round(angle) % 360, abs(angle - round(angle)) < 1e-6
    # The matrix maps (x, y) of the coded picture to (m[0] x + m[3] y, m[1] x + m[4] y).
    if turned_deg == 0:
        rotation_deg, mirrored = (180, True) if m[4] < 0 else (0, False)
    elif turned_deg == 90:
        rotation_deg, mirrored = (270, True) if m[3] > 0 else (90, False)
    elif turned_deg == 180:
        rotation_deg, mirrored = (180, False) if m[4] < 0 else (0, True)
    elif turned_deg == 270:
        rotation_deg, mirrored = (90, True) if m[3] < 0 else (270, False)
    else:
        return Orientation(ignored_deg=turned_deg, exact=False)
    return Orientation(rotation_deg, mirrored, exact=exact)


def describe(
    container: Any, stream: Any, path: str, orientation: Orientation = UPRIGHT
) -> VideoInfo:
    """What a file says about one of its video streams.

    Args:
        container: The open file.
        stream: The stream.
        path: The path for messages.
        orientation: Width and height are reported for the upright picture.
    """
    context, base = stream.codec_context, Fraction(stream.time_base)
    duration_s = None
    if stream.duration:
        duration_s = stream.duration * base
    elif container.duration:
        duration_s = Fraction(container.duration, av.time_base)
    if duration_s is not None and stream.start_time and _counts_from_zero(container, stream):
        duration_s = max(Fraction(0), duration_s - stream.start_time * base)
    origin_s = Fraction(0)
    if container.start_time is not None:
        start_us = container.start_time
        if clock_steps.may_step(container):
            start_us = clock_steps.start_us(container, clock_steps.timed_streams(container, stream))
        # ffmpeg moves timestamps by the container's start in units of the stream.
        start = Fraction(start_us, av.time_base)
        origin_s = round_half_away(start / base) * base
    width, height = context.width, context.height
    if orientation.rotation_deg % 180:
        width, height = height, width
    rate = stream.average_rate or stream.guessed_rate
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rotation_deg=orientation.rotation_deg,
        mirrored=orientation.mirrored,
        fps=Fraction(rate) if rate else None,
        duration_s=duration_s,
        n_frames=stream.frames or None,
        start_s=None if stream.start_time is None else stream.start_time * base,
        origin_s=origin_s,
        time_base=base,
        stream_index=stream.index,
        codec=context.name,
        pixel_format=context.pix_fmt,
        container=container.format.name,
        # FFmpeg's AV_FIELD_UNKNOWN is 0, AV_FIELD_PROGRESSIVE 1.
        interlaced=int(getattr(context, "field_order", 0)) > 1,
    )


def _is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _counts_from_zero(container: Any, stream: Any) -> bool:
    """Whether the announced duration runs from zero, wherever the first frame is.

    So it does in Matroska, and in fragmented MP4, whose header lists no frames.
    """
    names = set(container.format.name.split(","))
    return "matroska" in names or ("mp4" in names and not stream.frames)


class TimestampGuess:
    """Chooses between a frame's presentation time and its packet's decoding time.

    AVI and some other files store only decoding times. FFmpeg derives presentation times from
    them that jump back and forth, counts which of the two series runs backwards more often and
    uses the other. Its tools make that choice, so the official features depend on it.
    """

    def __init__(self) -> None:
        self.n_faulty_pts = 0
        self._n_faulty_dts = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None

    def push(self, pts: int | None, dts: int | None) -> int | None:
        """Take the two times of a decoded frame; return the one to use, None if it has neither."""
        if dts is not None:
            self._n_faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self.n_faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self.n_faulty_pts <= self._n_faulty_dts):
            return pts
        return dts


class Lookahead:
    """Packets in decoding order, and for each the time of the picture shown after its own.

    Args:
        packets: The packets of one stream; the last may be None, which flushes the decoder.
    """

    def __init__(self, packets: Iterator[Any]) -> None:
        self._packets = packets
        self._waiting: deque[Any] = deque()
        self._known: list[int] = []
        self._newest_dts: int | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        while self._waiting or self._read():
            yield self._waiting.popleft()

    def next_pts(self, packet: Any) -> int | None:
        """The presentation time of the frame shown after this packet's, None if it is uncertain.

        It is certain once a packet with a decoding time not before it was read: no picture is
        shown before it is decoded, so no later packet can lie in between.
        """
        while True:
            position = bisect_right(self._known, packet.pts)
            following = self._known[position] if position < len(self._known) else None
            settled = following is not None and (
                self._ended or (self._newest_dts is not None and self._newest_dts >= following)
            )
            if settled:
                # Earlier times are needed only by packets that follow in decoding order and are
                # shown earlier, so a few are kept.
                if position > 2 * _MAX_AHEAD:
                    del self._known[: position - _MAX_AHEAD]
                return following
            if len(self._waiting) >= _MAX_AHEAD or not self._read():
                return None

    def _read(self) -> bool:
        packet: Any = next(self._packets, _END)
        if packet is _END:
            self._ended = True
            return False
        self._waiting.append(packet)
        if packet is not None and packet.pts is not None and not packet.is_discard:
            insort(self._known, packet.pts)
        if packet is not None and packet.dts is not None:
            self._newest_dts = packet.dts
        return True


def missing_end(
    name: str, container: Any, stream: Any, info: VideoInfo, end_s: Fraction
) -> str | None:
    """A warning for a file that holds less than it announces, None if it is complete.

    Reads the rest of the other streams where that has to decide.

    Args:
        name: The path for FFmpeg.
        container: The open file.
        stream: Its video stream.
        info: What it says about the stream.
        end_s: When the display of its last frame ends, seconds on the file's clock.
    """
    names = set(info.container.split(","))
    if names & _ANNOUNCE_ONE_DURATION:
        announced_s = Fraction(container.duration or 0, av.time_base)
        # Matroska counts its duration from zero, wherever the first frame is.
        origin_s = min(info.origin_s, Fraction(0)) if "matroska" in names else info.origin_s
        lasted_s = end_s - origin_s
        short = _is_short(lasted_s, announced_s)
        if short and _others_reach_the_end(name, stream, lasted_s, announced_s, origin_s):
            return None
    else:
        announced_s = _own_duration_s(stream, info)
        lasted_s = end_s - (info.start_s or Fraction(0))
        short = _is_short(lasted_s, announced_s)
    if not short:
        return None
    return (
        f"truncated: container announces {float(announced_s):.1f} s, "
        f"frames end at {float(lasted_s):.1f} s"
    )


def _is_short(lasted_s: Fraction, announced_s: Fraction) -> bool:
    return announced_s - lasted_s > max(_TOLERANCE_S, announced_s * _TOLERANCE)


def _own_duration_s(stream: Any, info: VideoInfo) -> Fraction:
    """The duration announced for this stream alone, 0 if there is none."""
    own_s = Fraction(0)
    if info.duration_s is not None and (stream.duration or len(stream.container.streams) == 1):
        own_s = info.duration_s
    if info.container == "avi" and info.n_frames and info.fps:
        # Without an index, FFmpeg derives the duration of an AVI file from what is left of it.
        own_s = max(own_s, info.n_frames / info.fps)
    return own_s


def _others_reach_the_end(
    name: str, stream: Any, lasted_s: Fraction, announced_s: Fraction, origin_s: Fraction
) -> bool:
    for from_s in (lasted_s + origin_s, None):
        with (
            suppress(av.error.FFmpegError, OSError, IndexError),
            av.open(name, metadata_errors="replace") as container,
        ):
            others = [
                other
                for other in container.streams
                if other.index != stream.index and other.type in ("audio", "subtitle", "video")
            ]
            if not others:
                return False
            if from_s is not None:
                container.seek(int(from_s * av.time_base))
            seen = False
            for packet in container.demux(others):
                if packet.pts is None or packet.time_base is None:
                    continue
                seen = True
                if not _is_short(packet.pts * packet.time_base - origin_s, announced_s):
                    return True
            if seen:
                return False
        # Seeking failed or led past the end: read the file from its beginning.
    return False
