"""decord: frames by number, exact times from a packet scan. The second choice of ``auto``.

It has its own, older FFmpeg, which may read files that PyAV's cannot. It can hang while it holds
the interpreter lock, it can crash, and it decodes ahead without bound while its reader is slow: use
it in a process that may be killed. Frames are read one by one from the first, because its seeking
is wrong; random access is slow.
"""
# ruff: noqa: D102 (the methods are described in source.py)

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.core.text import first_line
from tspcli.errors import VideoError
from tspcli.video.decoders.indexed_source import IndexedSource
from tspcli.video.source import check_file

# In other containers, decord's initial seek misses the first frame.
_CONTAINERS = {"mov", "mp4", "matroska", "webm"}


class DecordSource(IndexedSource):
    """A video read by decord.

    Args:
        path: The file.
        threads: Number of FFmpeg's threads.

    Raises:
        VideoError: With its reason, if the file cannot be opened or decord's frames disagree with
            the packets.
    """

    decoder = "decord"

    @classmethod
    def facts(cls) -> dict[str, Any]:
        import decord

        return {"version": decord.__version__}

    def __init__(self, path: str, threads: int = 1) -> None:
        import decord

        self._name = check_file(path)
        self._threads = threads
        self._decord: Any = decord
        self._error: type[Exception] = decord.DECORDError
        super().__init__(path)
        container = self.info.container
        if not _CONTAINERS & set(container.split(",")):
            raise VideoError(
                "unsupported", f"decord loses the first frames of {container}", path=self.info.path
            )
        if self._index.has_twin:
            raise VideoError(
                "unsupported",
                "decord offers no choice between several streams of one size",
                path=path,
            )
        if not self._index.exact_rotation:
            raise VideoError("unsupported", "decord rotates only by exact quarter turns", path=path)
        try:
            self._name.encode()
            self._reader: Any = self._open()
        except UnicodeEncodeError as error:
            raise VideoError(
                "unsupported", "decord cannot open a name that is not UTF-8", path=path
            ) from error
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError("not-a-video", first_line(error), path=path) from error
        self.check_count(len(self._reader))
        # decord counts times from the stream's start.
        start_s = self._index.pts[0] * self.info.time_base
        for index in {0, len(self._reader) - 1}:
            self.check_time(index, float(self._reader.get_frame_timestamp(index)[0]), start_s)
        self._position = 0

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        try:
            if index < self._position:
                self._reader = self._open()
                self._position = 0
            # One by one: on open groups of pictures and on HEVC, decord's own skipping and seeking
            # silently give a later frame than asked for.
            for _ in range(index - self._position):
                self._reader.next()
            self._position = index + 1
            return _without_padding(self._reader.next().asnumpy())
        except (self._error, StopIteration, RuntimeError) as error:
            raise VideoError(
                "damaged", f"frame {index}: {first_line(error)}", path=self.info.path
            ) from error

    def _open(self) -> Any:
        return self._decord.VideoReader(
            self._name, ctx=self._decord.cpu(0), num_threads=max(1, self._threads)
        )

    def close(self) -> None:
        self._reader = None


def _without_padding(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Remove the row padding that decord returns as further channels of small rotated frames."""
    height, width, channels = rgb.shape
    if channels <= 3:
        return rgb
    rows = rgb.reshape(height, width * channels)
    return np.ascontiguousarray(rows[:, : width * 3]).reshape(height, width, 3)
