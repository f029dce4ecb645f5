"""The base of decoders that number frames instead of giving exact times.

decord and torchcodec return "frame 17" and floating-point times. The exact times come from a scan
of the file's packets by PyAV. A decoder whose count or times disagree with the scan is rejected,
and the next one is tried.
"""
# ruff: noqa: D102 (the methods are described in source.py)

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from tspcli.core.text import counted, first_line
from tspcli.errors import VideoError
from tspcli.video.decoders.clock_steps import may_step, read_clock
from tspcli.video.decoders.containers import missing_end
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.source import Frame, VideoInfo, VideoSource, Wanted, file_stamp


@dataclass(frozen=True)
class FrameIndex:
    """The times of a video's frames according to its packets.

    Attributes:
        info: What the file says about the stream.
        pts: Presentation times in units of ``info.time_base``, ascending, one per frame; a compact
            array, since hours of video have millions.
        last_duration: Duration of the last frame in those units, 0 if unknown.
        exact_rotation: Whether the pictures are rotated by exact quarter turns, if at all.
        has_twin: Whether another video stream has frames of the same size.
        missing_end: A warning if the file ends before the end that it announces.
    """

    info: VideoInfo
    pts: array[int]
    last_duration: int
    exact_rotation: bool
    has_twin: bool
    missing_end: str | None = None


def scan_packets(path: str) -> FrameIndex:
    """Read every packet of a video's stream without decoding any.

    Raises:
        VideoError: As for :class:`PyavSource`; ``unsupported`` if packets lack presentation times.
    """
    source = PyavSource(path)
    source.close()
    info = source.info
    pts, durations = array("q"), array("q")
    with av.open(source.name, metadata_errors="replace") as container:
        stream: Any = container.streams[info.stream_index]
        if may_step(container):
            stamp = file_stamp(source.name)
            if n_steps := read_clock(source.name, info.stream_index, stamp).n_steps:
                raise VideoError(
                    "unsupported",
                    f"its clock steps ({counted(n_steps, 'time')}), which only PyAV corrects",
                    path=info.path,
                )
        sizes = [(other.width, other.height) for other in container.streams.video]
        last_dts = -math.inf
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None:
                    raise VideoError("unsupported", "packets without times", path=info.path)
                if packet.dts is not None:
                    if packet.dts < last_dts:
                        # Sorted times would belong to other pictures.
                        raise VideoError("unsupported", "its clock steps back", path=info.path)
                    last_dts = packet.dts
                pts.append(packet.pts)
                durations.append(packet.duration or 0)
        except (av.error.FFmpegError, OSError, IndexError) as error:
            # PyAV's IndexError: a packet of a stream that does not exist.
            raise VideoError("damaged", first_line(error), path=info.path) from error
        if not pts:
            raise VideoError("no-frames", path=info.path)
        order = np.lexsort((durations, pts))
        ascending = array("q", np.asarray(pts)[order].tobytes())
        last_duration = durations[order[-1]]
        end_s = (ascending[-1] + last_duration) * info.time_base
        missing = missing_end(source.name, container, stream, info, end_s)
    return FrameIndex(
        info,
        ascending,
        last_duration,
        source.orientation.exact,
        sizes.count((stream.width, stream.height)) > 1,
        missing,
    )


class IndexedFrame(Frame):
    """A frame that is decoded when its picture is needed."""

    __slots__ = ("_index", "_source")

    def __init__(
        self, pts_s: Fraction, duration_s: Fraction | None, index: int, source: IndexedSource
    ) -> None:
        super().__init__(pts_s, duration_s)
        self._index = index
        self._source = source

    @property
    def has_picture(self) -> bool:
        return True

    def rgb(self) -> npt.NDArray[np.uint8]:
        return self._source.picture(self._index)


class IndexedSource(VideoSource):
    """A source whose decoder returns frames by number."""

    def __init__(self, path: str) -> None:
        self.warnings = []
        self.n_decoded = 0
        self._index = scan_packets(path)
        self.info = self._index.info
        if self._index.missing_end is not None:
            self.warnings.append(self._index.missing_end)
        self._last: tuple[int, npt.NDArray[np.uint8]] | None = None

    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        pts, base = self._index.pts, self.info.time_base
        first = 0
        if start_s is not None:
            first = max(0, bisect_right(pts, start_s / base) - 1)
        self._last = None
        for index in range(first, len(pts)):
            is_last = index == len(pts) - 1
            duration = self._index.last_duration if is_last else pts[index + 1] - pts[index]
            duration_s = duration * base if duration > 0 else None
            yield self.frame(index, pts[index] * base, duration_s)

    def frame(self, index: int, pts_s: Fraction, duration_s: Fraction | None) -> IndexedFrame:
        """The frame with a number; nothing is decoded yet."""
        return IndexedFrame(pts_s, duration_s, index, self)

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The picture of the frame with a number; the last picture is kept."""
        if self._last is None or self._last[0] != index:
            rgb = self.mirror(self.decode(index))
            expected = (self.info.height, self.info.width, 3)
            if rgb.shape != expected:
                raise VideoError(
                    "unsupported",
                    f"{self.decoder} gives frames of {rgb.shape}, not {expected}",
                    path=self.info.path,
                )
            self.n_decoded += 1
            self._last = (index, rgb)
        return self._last[1]

    def mirror(self, picture: Any) -> Any:
        """A decoded picture, mirrored as the file wants it: decoders rotate, but do not mirror.

        Args:
            picture: A numpy array (H, W, 3), or anything with the method ``flip`` of torch tensors.
        """
        if not self.info.mirrored:
            return picture
        # They rotate by the angle of the matrix, which a mirrored one has 180 degrees off.
        axis = 1 if self.info.rotation_deg % 180 else 0
        return np.flip(picture, axis) if isinstance(picture, np.ndarray) else picture.flip(axis)

    @abstractmethod
    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode one frame to RGB, uint8, shape (height, width, 3), rotated but not mirrored."""

    def check_count(self, n_frames: int) -> None:
        """Reject a decoder whose number of frames is not that of the packets.

        Raises:
            VideoError: ``unsupported``.
        """
        if n_frames != len(self._index.pts):
            raise VideoError(
                "unsupported",
                f"{self.decoder} counts {n_frames} frames, the packets {len(self._index.pts)}",
                path=self.info.path,
            )

    def check_time(self, index: int, time_s: float, start_s: Fraction = Fraction(0)) -> None:
        """Reject a decoder that returns a frame of another time.

        Args:
            index: The frame's number.
            time_s: Its time in seconds according to the decoder, rounded.
            start_s: The time from which the decoder counts.

        Raises:
            VideoError: ``damaged``.
        """
        pts, base = self._index.pts, self.info.time_base
        expected_s = float(pts[index] * base - start_s)
        # Half the distance to the nearest neighbour: within that, it is this frame.
        gaps = [pts[i + 1] - pts[i] for i in (index - 1, index) if 0 <= i < len(pts) - 1]
        tolerance_s = float(min([gap for gap in gaps if gap > 0], default=1) * base) / 2
        if abs(time_s - expected_s) > max(tolerance_s, 1e-6):
            raise VideoError(
                "damaged",
                f"{self.decoder} puts frame {index} at {time_s:.3f} s, its packet is at "
                f"{expected_s:.3f} s",
                path=self.info.path,
            )
