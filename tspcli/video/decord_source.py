"""decord: frames by number, exact times from a packet scan. The second choice of ``auto``.

It brings its own, older FFmpeg, so that it may read what PyAV's cannot, and the other way round.
It can hang while it holds the interpreter lock, it can crash, and it decodes ahead without bound
while its reader is slow: use it in a process that may be killed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.errors import VideoError
from tspcli.video.base import check_file, path_text
from tspcli.video.indexed import IndexedSource


class DecordSource(IndexedSource):
    """A video read by decord.

    Args:
        path: The file.
        threads: FFmpeg's threads.

    Raises:
        VideoError: With its reason, if the file cannot be opened or decord's frames are not those
            that the packets tell.
    """

    decoder = "decord"

    def __init__(self, path: str, threads: int = 1) -> None:
        import decord

        name = check_file(path)
        super().__init__(path)
        self._error: type[Exception] = decord.DECORDError
        try:
            name.encode()
            self._reader: Any = decord.VideoReader(
                name, ctx=decord.cpu(0), num_threads=max(1, threads)
            )
        except UnicodeEncodeError as error:
            raise VideoError(
                "unsupported", "decord takes no name that is not UTF-8", path=path_text(path)
            ) from error
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError("not-a-video", _first_line(error), path=path_text(path)) from error
        self.check_count(len(self._reader))
        for index in {0, len(self._reader) - 1}:
            self.check_time(index, float(self._reader.get_frame_timestamp(index)[0]))
        self._position = 0

    def decode(self, index: int) -> npt.NDArray[np.uint8]:  # noqa: D102
        try:
            if index < self._position:
                self._reader.seek_accurate(index)
            elif index > self._position:
                # Forward through the stream: a seek would trust the index of an open GOP.
                self._reader.skip_frames(index - self._position)
            self._position = index + 1
            return self._reader.next().asnumpy()
        except (self._error, StopIteration, RuntimeError) as error:
            raise VideoError(
                "damaged", f"frame {index}: {_first_line(error)}", path=self.info.path
            ) from error

    def close(self) -> None:  # noqa: D102
        self._reader = None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
