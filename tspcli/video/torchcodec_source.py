"""torchcodec: frames by number, exact times from a packet scan. An extra; never part of ``auto``.

The one decoder that needs torch, which it brings into every decode process. It uses the FFmpeg
libraries of the system. On a GPU with NVDEC it decodes and scales there, once the first seconds of
a video have been seen to be those that the CPU decodes.
"""
# ruff: noqa: D102 (the methods are described in base.py)

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tspcli.config import FrameSpec
from tspcli.errors import DependencyError, VideoError
from tspcli.video.base import check_file, path_text
from tspcli.video.indexed import IndexedFrame, IndexedSource
from tspcli.video.parity_gate import require_same_start
from tspcli.video.pyav_source import PyavSource
from tspcli.wording import first_line


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
    device = "cpu"

    def __init__(self, path: str, threads: int = 1) -> None:
        name = check_file(path)
        try:
            decoders: Any = importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            raise DependencyError(
                f"torchcodec cannot be loaded: {first_line(error).rstrip('.')}.",
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
                device=self.device,
                seek_mode="exact",
            )
        except UnicodeEncodeError as error:
            raise VideoError(
                "unsupported", "torchcodec takes no name that is not UTF-8", path=path_text(path)
            ) from error
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError("not-a-video", first_line(error), path=path_text(path)) from error
        self.check_count(int(self._reader.metadata.num_frames or 0))

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        picture: npt.NDArray[np.uint8] = self.decode_there(index).cpu().numpy()
        return picture

    def decode_there(self, index: int) -> Any:
        """One frame as a torch tensor (height, width, 3), uint8, on the decoder's device.

        Raises:
            VideoError: ``damaged`` if it cannot be decoded, or is of another time.
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


class TorchcodecCudaSource(TorchcodecSource):
    """A video decoded and scaled on a GPU, if it can be believed.

    Raises:
        VideoError: As :class:`TorchcodecSource`; ``unsupported`` if the first seconds are not those
            that the CPU decodes.
        DependencyError: If there is no GPU, or this torchcodec cannot use it.
    """

    decoder = "torchcodec-cuda"
    device = "cuda"

    def __init__(self, path: str, threads: int = 1) -> None:
        torch: Any = importlib.import_module("torch")
        if not torch.cuda.is_available():
            raise DependencyError(
                "torchcodec-cuda decodes on a GPU, and torch sees none.",
                remedy="Use --decoder auto, or see `tsp doctor`.",
            )
        super().__init__(path, threads)
        with PyavSource(path) as trusted:
            require_same_start(self, trusted)

    def frame(self, index: int, pts_s: Fraction, duration_s: Fraction | None) -> IndexedFrame:
        return _FrameThere(pts_s, duration_s, index, self)


class _FrameThere(IndexedFrame):
    """A frame that is scaled where it was decoded, so that little travels."""

    __slots__ = ()

    def scaled(self, spec: FrameSpec, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        source = self._source
        assert isinstance(source, TorchcodecSource)
        info = source.info
        shape = (*spec.output_shape(info.height, info.width), 3)
        if spec.dtype != "float32" or (out is not None and out.shape != shape):
            return super().scaled(spec, out)
        source.n_decoded += 1
        picture: npt.NDArray[Any] = (
            scale_there(source.decode_there(self._index), spec).cpu().numpy()
        )
        if out is None:
            return picture
        np.copyto(out, picture)
        return out


def scale_there(rgb: Any, spec: FrameSpec) -> Any:
    """:func:`tspcli.video.resize.resize_frame` to float32 on whatever device a frame is.

    Args:
        rgb: A torch tensor (H, W, 3), uint8.
        spec: Size and crop.

    Returns:
        A tensor (h, w, 3), float32 in 0..255.
    """
    functional: Any = importlib.import_module("torch.nn.functional")
    height, width = spec.resize.target(*rgb.shape[:2])
    planes = rgb.permute(2, 0, 1)[None].float()
    scaled = functional.interpolate(
        planes, size=(height, width), mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)
    if spec.crop is None:
        return scaled.contiguous()
    top, left = spec.crop_origin(height, width)
    return scaled[top : top + spec.crop[0], left : left + spec.crop[1]].contiguous()
