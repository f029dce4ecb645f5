"""What decoders that count frames instead of timing them have in common.

decord and torchcodec hand out "frame 17" and floating-point times. The exact times come from a
scan of the file's packets by PyAV; a decoder whose count or times disagree with the scan is not
believed, and the next one is tried.
"""
# ruff: noqa: D102 (the methods are described in base.py)

from __future__ import annotations

from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import numpy as np
import numpy.typing as npt

from tspcli.core.text import first_line
from tspcli.errors import VideoError
from tspcli.video.decoders.containers import missing_end
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.source import Frame, VideoInfo, VideoSource, Wanted


@dataclass(frozen=True)
class FrameIndex:
    """The times of a video's frames as its packets tell them.

    Attributes:
        info: The file's facts.
        pts: Presentation times in units of ``info.time_base``, ascending, one a frame; compact,
            since hours of video have millions.
        last_duration: Duration of the last frame in those units, 0 if unknown.
        n_video_streams: Video streams in the file.
        missing_end: What to say if the file ends before it should.
    """

    info: VideoInfo
    pts: array[int]
    last_duration: int
    n_video_streams: int
    missing_end: str | None = None


def scan_packets(path: str) -> FrameIndex:
    """Read every packet of a video's stream without decoding it.

    Raises:
        VideoError: As PyAV's source does; ``unsupported`` if packets lack presentation times.
    """
    source = PyavSource(path)
    source.close()
    info = source.info
    pts, durations = array("q"), array("q")
    with av.open(source.name, metadata_errors="replace") as container:
        n_video_streams = len(container.streams.video)
        stream = container.streams[info.stream_index]
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None:
                    raise VideoError("unsupported", "packets without times", path=info.path)
                pts.append(packet.pts)
                durations.append(packet.duration or 0)
        except (av.error.FFmpegError, OSError, IndexError) as error:
            # A packet that names a stream which is not there is PyAV's IndexError.
            raise VideoError("damaged", first_line(error), path=info.path) from error
        if not pts:
            raise VideoError("no-frames", path=info.path)
        order = np.lexsort((durations, pts))
        ascending = array("q", np.asarray(pts)[order].tobytes())
        last_duration = durations[order[-1]]
        end_s = (ascending[-1] + last_duration) * info.time_base
        missing = missing_end(source.name, container, stream, info, end_s)
    return FrameIndex(info, ascending, last_duration, n_video_streams, missing)


class IndexedFrame(Frame):
    """A frame that its source decodes when asked for its picture."""

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
    """A source whose decoder is asked for frames by number."""

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
        """What stands for the frame of a number; nothing is decoded yet."""
        return IndexedFrame(pts_s, duration_s, index, self)

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The picture of a frame by its number; the last one is remembered."""
        if self._last is None or self._last[0] != index:
            rgb = self.decode(index)
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

    @abstractmethod
    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode one frame; numbers mostly ascend. RGB, uint8, shape (height, width, 3)."""

    def check_count(self, n_frames: int) -> None:
        """Refuse a decoder that counts other frames than the file's packets tell.

        Raises:
            VideoError: ``unsupported``.
        """
        if n_frames != len(self._index.pts):
            raise VideoError(
                "unsupported",
                f"{self.decoder} counts {n_frames} frames, the packets tell {len(self._index.pts)}",
                path=self.info.path,
            )

    def check_time(self, index: int, time_s: float, start_s: Fraction = Fraction(0)) -> None:
        """Refuse a decoder that gives a frame of another time than its number's.

        Args:
            index: The frame's number.
            time_s: When the decoder says that it is shown, seconds, rounded.
            start_s: What the decoder counts its times from.

        Raises:
            VideoError: ``damaged``.
        """
        pts, base = self._index.pts, self.info.time_base
        expected_s = float(pts[index] * base - start_s)
        # Half the distance to the nearest neighbour: closer than that, it is no other frame.
        gaps = [pts[i + 1] - pts[i] for i in (index - 1, index) if 0 <= i < len(pts) - 1]
        tolerance_s = float(min([gap for gap in gaps if gap > 0], default=1) * base) / 2
        if abs(time_s - expected_s) > max(tolerance_s, 1e-6):
            raise VideoError(
                "damaged",
                f"{self.decoder} puts frame {index} at {time_s:.3f} s, its packet is at "
                f"{expected_s:.3f} s",
                path=self.info.path,
            )
