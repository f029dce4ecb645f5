"""torchcodec: frames by number, exact times from a packet scan. An extra; never part of ``auto``.

The only decoder that needs torch, which it loads into every decode process. It uses the system's
FFmpeg libraries. On a GPU: :mod:`tspcli.video.decoders.torchcodec_cuda_source`.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.core.text import first_line
from tspcli.errors import DependencyError, VideoError
from tspcli.video.decoders.indexed_source import IndexedSource
from tspcli.video.source import check_file

# ruff: noqa: D102 (the methods are described in source.py)


class TorchcodecSource(IndexedSource):
    """A video read by torchcodec on the CPU.

    Args:
        path: The file.
        threads: Number of FFmpeg's threads.

    Raises:
        VideoError: With its reason, if the file cannot be opened or torchcodec's frames disagree
            with the packets.
        DependencyError: If torchcodec or FFmpeg's libraries are missing.
    """

    decoder = "torchcodec"

    @classmethod
    def facts(cls) -> dict[str, Any]:
        package: Any = importlib.import_module("torchcodec")
        importlib.import_module("torchcodec.decoders")
        return {"version": package.__version__}

    def __init__(self, path: str, threads: int = 1) -> None:
        self._open(path, threads, "cpu")

    def _open(self, path: str, threads: int, device: str) -> None:
        name = check_file(path)
        try:
            decoders: Any = importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            raise DependencyError(
                f"torchcodec cannot be loaded: {first_line(error).rstrip('.')}.",
                remedy="It needs the package torchcodec and FFmpeg's shared libraries (Debian: "
                "apt-get install ffmpeg), or use --decoder auto.",
            ) from error
        IndexedSource.__init__(self, path)
        try:
            name.encode()
            options = {
                "stream_index": self.info.stream_index,
                "dimension_order": "NHWC",
                "num_ffmpeg_threads": max(1, threads),
                "seek_mode": "exact",
            }
            self._reader: Any = self.make_reader(decoders, name, device, options)
        except UnicodeEncodeError as error:
            raise VideoError(
                "unsupported", "torchcodec cannot open a name that is not UTF-8", path=path
            ) from error
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError("not-a-video", first_line(error), path=path) from error
        self.check_count(int(self._reader.metadata.num_frames or 0))

    def make_reader(self, decoders: Any, name: str, device: str, options: dict[str, Any]) -> Any:
        """Open a file with torchcodec on a device."""
        return decoders.VideoDecoder(name, device=device, **options)

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        picture: npt.NDArray[np.uint8] = self.decode_there(index).cpu().numpy()
        return picture

    def decode_there(self, index: int) -> Any:
        """One frame as a torch tensor (height, width, 3), uint8, on the decoder's device.

        Raises:
            VideoError: ``damaged`` if it cannot be decoded or has another time.
        """
        try:
            frame = self._reader.get_frame_at(index)
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                "damaged", f"frame {index}: {first_line(error)}", path=self.info.path
            ) from error
        self.check_time(index, float(frame.pts_seconds))
        return frame.data

    def close(self) -> None:
        self._reader = None
