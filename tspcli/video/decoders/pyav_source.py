"""PyAV: FFmpeg's demuxers and decoders as one stream of frames. The first choice of ``auto``.

It leaves out work whose result is not needed. A non-reference frame of H.264 without a needed tick
is not decoded (``skip_frame=nonref``, switched packet by packet), which changes no pixel of the
other frames; a frame that no clip selects is not converted to RGB.
"""
# ruff: noqa: D102 (the methods are described in source.py)

from __future__ import annotations

import heapq
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from tspcli.core.text import counted, storable
from tspcli.errors import VideoError
from tspcli.sampling.yuv import YuvFormat
from tspcli.video.decoders.clock_steps import ClockSteps, may_step, read_clock, timed_streams
from tspcli.video.decoders.containers import (
    UPRIGHT,
    Lookahead,
    TimestampGuess,
    describe,
    missing_end,
    open_container,
    orientation_of,
    pick_stream,
)
from tspcli.video.decoders.swscale import FULL_RANGE, converts_by_tables, rows_of, to_rgb24
from tspcli.video.source import (
    MAX_PIXELS,
    Frame,
    VideoSource,
    Wanted,
    YuvPicture,
    check_file,
    check_size,
    file_stamp,
)

_MAX_SEEKS_BACK = 6
# Only in these do packets have presentation times, and is it certain that no frame refers to one.
_SKIP_CONTAINERS = {"mov", "mp4", "matroska", "webm", "mpegts", "flv"}
_SKIP_CODECS = {"h264"}
# Formats whose conversion depends on no flag of a frame but the interlaced one.
_CONVERTED_ALIKE = {"yuv420p", "yuvj420p", "yuv444p", "yuvj444p", "gray"}
# Colour matrices (ITU-T H.273) that swscale can convert, and the names of some that it cannot.
_CONVERTIBLE = {0, 1, 2, 4, 5, 6, 7, 9}
_MATRICES = {
    3: "reserved",
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


class PyavFrame(Frame):
    """A decoded frame that is converted to RGB when asked for."""

    __slots__ = ("_frame", "_source")

    def __init__(
        self, pts_s: Fraction, duration_s: Fraction | None, frame: Any, source: PyavSource
    ) -> None:
        super().__init__(pts_s, duration_s)
        self._frame = frame
        self._source = source

    @property
    def has_picture(self) -> bool:
        return True

    @property
    def display_matrix(self) -> bytes | None:
        """How the file wants the frame to be shown: nine 32-bit integers, or None."""
        data = self._frame.side_data.get("DISPLAYMATRIX")
        return None if data is None else bytes(data)

    def rgb(self) -> npt.NDArray[np.uint8]:
        return self._source.convert(self._frame)

    def yuv(self) -> YuvPicture | None:
        return self._source.coded(self._frame)


class PyavSource(VideoSource):
    """A video read by PyAV.

    Args:
        path: The file.
        threads: Number of FFmpeg's threads.
        skip_unwanted: Whether unwanted non-reference frames may be left undecoded.

    Attributes:
        orientation: How coded pictures become upright.

    Raises:
        VideoError: With its reason, if the file cannot be opened or no frame decoded.
    """

    decoder = "pyav"

    @classmethod
    def facts(cls) -> dict[str, Any]:
        codecs = ("h264", "hevc", "vp9", "av1", "mpeg4")
        return {
            "version": av.__version__,
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
            "codecs": [name for name in codecs if name in av.codecs_available],
        }

    def __init__(self, path: str, threads: int = 1, *, skip_unwanted: bool = True) -> None:
        self.path = storable(path)
        self.warnings = []
        self.n_decoded = 0
        self.name = check_file(path)
        self._threads = threads
        self._reformatter = VideoReformatter()
        self._plain: Any = None
        self._wanted: Wanted | None = None
        self._container = open_container(self.name, self.path)
        try:
            self._stream = pick_stream(self._container, self.path)
            self._configure()
            self.orientation = UPRIGHT
            self.info = describe(self._container, self._stream, self.path)
            check_size(self.info.width, self.info.height, self.path)
            self._may_skip = skip_unwanted and self._is_skippable()
            self._begin()
            # Only a decoded frame has the orientation and shows that frames can be decoded.
            self._head: list[Frame] = [self._first_frame()]
            self.first_pts_s = self._head[0].pts_s
        except BaseException:
            self._container.close()
            raise
        self._untouched = True

    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        if start_s is not None:
            self._untouched = False
            yield from self._frames_from(start_s, wanted)
            return
        if not self._untouched:
            self._reopen()
        self._untouched = False
        self._wanted = wanted
        head, self._head = self._head, []
        yield from head
        yield from self._running
        self._check_end()

    def close(self) -> None:
        self._container.close()

    def convert(self, frame: Any) -> npt.NDArray[np.uint8]:
        """A PyAV frame as RGB, uint8, shape (height, width, 3), upright."""
        if frame.colorspace not in _CONVERTIBLE:
            self._replace_matrix(frame)
        picture = to_rgb24(self._reformatter, self._without_flags(frame))
        plane = picture.planes[0]
        height, width = picture.height, picture.width
        row_bytes = plane.line_size
        rows = np.frombuffer(plane, np.uint8, count=row_bytes * height).reshape(height, row_bytes)
        rgb = rows[:, : width * 3].reshape(height, width, 3)
        return rgb if self.orientation == UPRIGHT else self.orientation.apply(rgb)

    def coded(self, frame: Any) -> YuvPicture | None:
        """The planes of a PyAV frame, if swscale's pixels can be had from tables."""
        kind = frame.format.name
        # swscale takes another way for pictures of odd height.
        if kind not in ("yuv420p", "yuvj420p") or frame.height % 2:
            return None
        if frame.colorspace not in _CONVERTIBLE:
            self._replace_matrix(frame)
        full_range = kind == "yuvj420p" or frame.color_range == FULL_RANGE
        if not converts_by_tables(int(frame.colorspace), full_range):
            return None
        if any(plane.line_size <= 0 for plane in frame.planes):
            return None
        planes = tuple(rows_of(plane)[:, : plane.width] for plane in frame.planes)
        turned = self.orientation.rotation_deg, self.orientation.mirrored
        size = frame.height, frame.width
        return YuvPicture(YuvFormat(*size, int(frame.colorspace), full_range, *turned), planes)

    def _without_flags(self, frame: Any) -> Any:
        """The same planes without the frame's flags, where these change how chroma is scaled.

        PyAV converts each field of an interlaced frame by itself, and respects the position of the
        chroma samples. ffmpeg's scale filter does neither, nor do other decoders.
        """
        kind = frame.format
        if not frame.interlaced_frame and kind.name in _CONVERTED_ALIKE:
            return frame
        if kind.is_rgb or kind.has_palette or any(plane.line_size <= 0 for plane in frame.planes):
            return frame
        plain = self._plain
        size = (frame.width, frame.height, kind.name)
        if plain is None or (plain.width, plain.height, plain.format.name) != size:
            plain = self._plain = av.VideoFrame(*size)
        for source, target in zip(frame.planes, plain.planes, strict=True):
            rows_of(target)[:] = rows_of(source)[:, : target.line_size]
        plain.colorspace, plain.color_range = frame.colorspace, frame.color_range
        return plain

    def _replace_matrix(self, frame: Any) -> None:
        """Convert with another colour matrix where FFmpeg has none, as ffmpeg 5 did silently."""
        number = int(frame.colorspace)
        frame.colorspace, instead = (9, "BT.2020") if number == 10 else (5, "BT.601")
        warning = f"colour: matrix {_MATRICES.get(number, number)} is converted as {instead}"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _configure(self) -> None:
        context = self._stream.codec_context
        context.thread_count = self._threads
        context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        context.options = {**(context.options or {}), "max_pixels": str(MAX_PIXELS)}
        self._demuxed = [self._stream]
        if may_step(self._container):
            self._demuxed = timed_streams(self._container, self._stream)
        for stream in self._container.streams:
            if stream not in self._demuxed and hasattr(stream, "discard"):
                stream.discard = type(stream.discard)["all"]

    def _is_skippable(self) -> bool:
        names = set(self.info.container.split(","))
        return (
            self.info.codec in _SKIP_CODECS
            and bool(names & _SKIP_CONTAINERS)
            and not self.info.interlaced
        )

    def _reopen(self) -> None:
        self._container.close()
        self._container = open_container(self.name, self.path)
        self._stream = pick_stream(self._container, self.path)
        self._configure()
        self.warnings.clear()
        self._begin()

    def _begin(self, *, place_known: bool = True) -> None:
        self._place_known = place_known
        self._n_bad_packets = 0
        self._n_bad_frames = 0
        self._last_error: Exception | None = None
        self._last_end: int | None = None
        self._steps: ClockSteps | None = None
        if may_step(self._container):
            self._steps = ClockSteps(self._container, self._demuxed)
        base = self.info.time_base
        # Each time is needed repeatedly, and making a Fraction is slow.
        self._time_s = lru_cache(maxsize=256)(lambda units: units * base)
        self._running = self._decode()

    def _first_frame(self) -> Frame:
        for frame in self._running:
            assert isinstance(frame, PyavFrame)
            self.orientation = orientation_of(frame.display_matrix)
            self.info = describe(self._container, self._stream, self.path, self.orientation)
            if self.orientation.ignored_deg:
                angle = self.orientation.ignored_deg
                self.warnings.append(f"rotation: {angle} degrees are not applied")
            return frame
        raise self._no_frames()

    def _no_frames(self) -> VideoError:
        error = self._last_error
        if isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
            return VideoError("unsupported", str(error), path=self.path)
        why = f" ({error})" if error is not None else ""
        return VideoError("no-frames", f"no frame can be decoded{why}", path=self.path)

    def _frames_from(self, start_s: Fraction, wanted: Wanted | None) -> Iterator[Frame]:
        """Seek to the key frame before ``start_s``, then decode up to the frame shown there."""
        before: Frame | None = None
        seek_to_s = start_s
        # No seek leads to a corrected time.
        for attempt in range(_MAX_SEEKS_BACK if self._is_stepped() else 0, _MAX_SEEKS_BACK + 1):
            self._wanted = None
            if attempt == _MAX_SEEKS_BACK:
                self._reopen()
            else:
                self._seek(seek_to_s)
            before = next(self._running, None)
            if before is not None and before.pts_s <= start_s:
                break
            # The index led past the time (its entries are decoding times): seek further back.
            seek_to_s = start_s - Fraction(4) ** attempt / 2
        if before is None:
            raise self._no_frames()
        self._wanted = _from_on(start_s, wanted)
        for frame in self._running:
            if frame.pts_s > start_s:
                yield before
                before = frame
                break
            before = frame
        yield before
        yield from self._running

    def _is_stepped(self) -> bool:
        if self._steps is None:
            return False
        return read_clock(self.name, self._stream.index, file_stamp(self.name)).n_steps > 0

    def _seek(self, time_s: Fraction) -> None:
        offset = int(time_s / self.info.time_base // 1)
        self._begin(place_known=False)
        try:
            self._container.seek(offset, stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            # Before the first key frame, or a container without an index.
            self._reopen()

    def _decode(self) -> Iterator[Frame]:
        """Decode from the container's position to its end, with corrected times."""
        # AVI has only decoding times; its demuxer copies them into the presentation times.
        has_pts = "avi" not in self.info.container.split(",")
        guess = TimestampGuess()
        last_pts = 0 if self._place_known else None
        lookahead = Lookahead(self._packets() if self._steps is None else self._unstepped())
        skipped: list[tuple[int, int]] = []
        context = self._stream.codec_context
        # An iteration that was not finished may have left the decoder skipping.
        context.skip_frame = "DEFAULT"
        skipping = False
        for packet in lookahead:
            skip = (
                self._may_skip
                and self._wanted is not None
                and guess.n_faulty_pts == 0
                and self._is_unwanted(packet, lookahead)
            )
            if skip != skipping:
                context.skip_frame = "NONREF" if skip else "DEFAULT"
                skipping = skip
            if skip:
                heapq.heappush(skipped, (packet.pts, packet.duration or 0))
            for frame in self._decode_packet(packet):
                pts = guess.push(frame.pts if has_pts else None, frame.dts)
                duration = getattr(frame, "duration", 0) or 0
                if pts is None:
                    # When the decoder is drained, frames of such files come without a time. The
                    # first after a seek may lie anywhere: the seek led too near to the end.
                    if last_pts is None:
                        return
                    pts = last_pts + max(duration, 1)
                last_pts = pts
                while skipped and skipped[0][0] <= pts:
                    missing_pts, missing_duration = heapq.heappop(skipped)
                    if missing_pts < pts:
                        yield Frame(*self._times(missing_pts, missing_duration))
                self.n_decoded += 1
                self._n_bad_frames += bool(frame.is_corrupt)
                yield PyavFrame(*self._times(pts, duration), frame, self)
        while skipped:
            yield Frame(*self._times(*heapq.heappop(skipped)))

    def _is_unwanted(self, packet: Any, lookahead: Lookahead) -> bool:
        # None drains the decoder where the rest of the file cannot be read.
        if packet is None or packet.pts is None or packet.is_discard:
            return False
        next_pts = lookahead.next_pts(packet)
        if next_pts is None:
            return False
        assert self._wanted is not None
        return not self._wanted(self._time_s(packet.pts), self._time_s(next_pts))

    def _times(self, pts: int, duration: int) -> tuple[Fraction, Fraction | None]:
        self._last_end = pts + duration
        return self._time_s(pts), self._time_s(duration) if duration > 0 else None

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._demuxed)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError, IndexError) as error:
                # The rest cannot be read (PyAV's IndexError: a packet of a stream that does not
                # exist), but the decoder may still hold frames.
                self._n_bad_packets += 1
                self._last_error = error
                yield None
                return
            yield packet

    def _unstepped(self) -> Iterator[Any]:
        """The packets of the video, their times corrected where the file's clock steps."""
        assert self._steps is not None
        for packet in self._steps.corrected(self._packets()):
            # The index of the packet that drains the decoder says nothing.
            if packet is None or packet.stream.index == self._stream.index:
                yield packet

    def _decode_packet(self, packet: Any) -> list[Any]:
        try:
            return self._stream.codec_context.decode(packet)
        except MemoryError as error:
            raise VideoError("out-of-memory", str(error), path=self.path) from error
        except EOFError:
            return []
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._n_bad_packets += 1
            self._last_error = error
            return []

    def _check_end(self) -> None:
        if self._n_bad_packets:
            packets = counted(self._n_bad_packets, "packet")
            self.warnings.append(f"damaged: {packets} could not be decoded")
        if self._n_bad_frames:
            frames = counted(self._n_bad_frames, "frame")
            self.warnings.append(f"damaged: {frames} decoded with errors")
        stepped = None if self._steps is None else self._steps.warning()
        if stepped is not None:
            self.warnings.append(stepped)
        # The end that is announced for a clock that steps is that of one of its parts.
        elif self._last_end is not None:
            end_s = self._last_end * self.info.time_base
            missing = missing_end(self.name, self._container, self._stream, self.info, end_s)
            if missing is not None:
                self.warnings.append(missing)


def _from_on(start_s: Fraction, wanted: Wanted | None) -> Wanted:
    """Frames between the key frame and the one shown at the start are not needed."""
    return lambda pts_s, next_s: next_s > start_s and (wanted is None or wanted(pts_s, next_s))
