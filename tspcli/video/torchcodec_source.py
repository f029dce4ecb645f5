"""torchcodec: frames by number, exact times from a packet scan. An extra; never part of ``auto``.

The one decoder that needs torch, which it brings into every decode process. It uses the FFmpeg
libraries of the system.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.errors import DependencyError, VideoError
from tspcli.video.base import check_file, path_text
from tspcli.video.indexed import IndexedSource


class TorchcodecSource(IndexedSource):
    """A video read by torchcodec on the CPU.

    Args:
        path: The file.
        threads: FFmpeg's threads.

    Raises:
        VideoError: With its reason, if the file cannot be opened or torchcodec's frames are not
            those that the packets tell.
        DependencyError: If torchcodec or FFmpeg's libraries are missing.
    """

    decoder = "torchcodec"

    def __init__(self, path: str, threads: int = 1) -> None:
        name = check_file(path)
        try:
            decoders: Any = importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            raise DependencyError(
                f"torchcodec cannot be loaded: {str(error).strip().splitlines()[0]}",
                remedy="It needs the package torchcodec and FFmpeg's shared libraries (Debian: "
                "apt-get install ffmpeg), or use --decoder auto.",
            ) from error
        super().__init__(path)
        try:
            name.encode()
            self._reader: Any = decoders.VideoDecoder(
                name,
                stream_index=self.info.stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=max(1, threads),
                device="cpu",
                seek_mode="exact",
            )
        except UnicodeEncodeError as error:
            raise VideoError(
                "unsupported", "torchcodec takes no name that is not UTF-8", path=path_text(path)
            ) from error
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError("not-a-video", _first_line(error), path=path_text(path)) from error
        self.check_count(int(self._reader.metadata.num_frames or 0))

    def decode(self, index: int) -> npt.NDArray[np.uint8]:  # noqa: D102
        try:
            frame = self._reader.get_frame_at(index)
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                "damaged", f"frame {index}: {_first_line(error)}", path=self.info.path
            ) from error
        self.check_time(index, float(frame.pts_seconds))
        return frame.data.numpy()

    def close(self) -> None:  # noqa: D102
        self._reader = None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
