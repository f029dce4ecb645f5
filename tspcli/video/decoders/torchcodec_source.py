"""torchcodec: frames by number, exact times from a packet scan. An extra; never part of ``auto``.

The only decoder that needs torch, which it loads into every decode process. It uses the system's
FFmpeg libraries. On a GPU with NVDEC it decodes and scales there, after a parity gate: the first
seconds of every video are compared with what PyAV decodes on the CPU (:func:`require_same_start`).
"""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tspcli.core.text import first_line
from tspcli.errors import DependencyError, VideoError
from tspcli.sampling.pixels import FrameSpec
from tspcli.video.decoders.indexed_source import IndexedFrame, IndexedSource
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.source import VideoSource, check_file

# ruff: noqa: D102 (the methods are described in source.py)


_SAID = 120
"""Characters of torchcodec's own message that ours repeats before the remedy."""
UNUSABLE_DEVICES: dict[str, str] = {}
"""Devices on which no video can be decoded, and torchcodec's reason; found once per process."""


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


class TorchcodecCudaSource(TorchcodecSource):
    """A video decoded and scaled on a GPU, if it passes the parity gate.

    Args:
        path: The file.
        threads: Number of FFmpeg's threads.
        device: The GPU, such as ``cuda:1``.

    Raises:
        VideoError: As :class:`TorchcodecSource`; ``unsupported`` if NVDEC cannot decode this
            video, or its first seconds differ from those that the CPU decodes.
        DependencyError: If there is no GPU, or this torchcodec or this driver cannot decode there.
    """

    decoder = "torchcodec-cuda"

    @classmethod
    def facts(cls) -> dict[str, Any]:
        _require_gpu()
        return super().facts()

    def __init__(self, path: str, threads: int = 1, device: str = "cuda") -> None:
        _require_gpu()
        if device in UNUSABLE_DEVICES:
            raise _no_nvdec(device, UNUSABLE_DEVICES[device])
        self._open(path, threads, device)
        # torchcodec may know from the start where it decodes, or only after a frame.
        self._require_hardware(device)
        with PyavSource(path) as trusted:
            require_same_start(self, trusted)
        self._require_hardware(device)

    def make_reader(self, decoders: Any, name: str, device: str, options: dict[str, Any]) -> Any:
        """Open a file with torchcodec on a GPU.

        Raises:
            DependencyError: If the CPU can open the file and the GPU cannot.
        """
        try:
            return super().make_reader(decoders, name, device, options)
        except (RuntimeError, ValueError, IndexError) as error:
            said = first_line(error).rstrip(".")
            # If the CPU cannot open it either, the file is at fault: raise that instead.
            super().make_reader(decoders, name, "cpu", options)
            if "unsupported device" in said.lower():
                UNUSABLE_DEVICES[device] = said
            raise _no_nvdec(device, said) from error

    def _require_hardware(self, device: str) -> None:
        """Refuse the CPU: without NVDEC, torchcodec silently decodes there."""
        fallback = getattr(self._reader, "cpu_fallback", None)
        if not fallback:
            return
        if getattr(fallback, "_nvcuvid_unavailable", False) or "nvcuvid" in str(fallback).lower():
            UNUSABLE_DEVICES[device] = str(fallback)
            raise _no_nvdec(device, str(fallback))
        info = self.info
        raise VideoError(
            "unsupported",
            f"NVDEC on {device} does not decode {info.codec} {info.pixel_format} of "
            f"{info.width} x {info.height}: {fallback}",
            path=info.path,
        )

    def frame(self, index: int, pts_s: Fraction, duration_s: Fraction | None) -> IndexedFrame:
        return _FrameThere(pts_s, duration_s, index, self)


class _FrameThere(IndexedFrame):
    """A frame scaled on the device that decoded it, so that little is copied."""

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
            scale_there(source.mirror(source.decode_there(self._index)), spec).cpu().numpy()
        )
        if out is None:
            return picture
        np.copyto(out, picture)
        return out


def _require_gpu() -> None:
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise DependencyError(
            "torchcodec-cuda decodes on a GPU, and torch sees none.",
            remedy="Use --decoder auto, or see `tsp doctor`.",
        )


def _no_nvdec(device: str, said: str) -> DependencyError:
    return DependencyError(
        f"torchcodec-cuda cannot decode on {device}: {said[:_SAID]}.",
        remedy="It needs a torchcodec that was built for CUDA (not a +cpu wheel), a GPU with NVDEC "
        "and the driver's libnvcuvid (containers: NVIDIA_DRIVER_CAPABILITIES with video); or use "
        "--decoder auto.",
    )


def scale_there(rgb: Any, spec: FrameSpec) -> Any:
    """:func:`tspcli.video.resize.resize_frame` to float32, on the device of the frame.

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


CHECKED_S = Fraction(2)
"""How many seconds of every video are compared."""
PICTURE_EVERY = 5
"""The times of all those frames are compared, and the pictures of every fifth."""
MEAN_BOUND, LARGEST_BOUND = 1.0, 16
"""Of 255, over a picture. Hardware decodes the same planes but rounds differently when it converts
them to RGB; another frame, colour matrix or range exceeds this by far."""


def require_same_start(candidate: VideoSource, trusted: VideoSource) -> None:
    """Compare the first seconds of a video as decoded by two decoders.

    Raises:
        VideoError: ``unsupported``, naming the first difference.
    """
    theirs = iter(candidate.frames())
    end_s: Fraction | None = None
    for index, expected in enumerate(trusted.frames()):
        end_s = expected.pts_s + CHECKED_S if end_s is None else end_s
        if expected.pts_s >= end_s:
            return
        found = next(theirs, None)
        where = f"at {float(expected.pts_s):.3f} s"
        if found is None or found.pts_s != expected.pts_s:
            _refuse(candidate, f"{where} it has no frame" if found is None else f"no frame {where}")
        if index % PICTURE_EVERY:
            continue
        ours, other = expected.rgb(), found.rgb()
        if ours.shape != other.shape:
            _refuse(candidate, f"{where} its frame is {other.shape}, not {ours.shape}")
        apart = np.abs(ours.astype(np.int16) - other)
        if apart.mean() > MEAN_BOUND or apart.max() > LARGEST_BOUND:
            _refuse(
                candidate,
                f"{where} its frame differs by {apart.mean():.2f} of 255 in the mean, "
                f"{apart.max()} at most",
            )


def _refuse(candidate: VideoSource, why: str) -> NoReturn:
    raise VideoError(
        "unsupported", f"{candidate.decoder} disagrees with PyAV: {why}", path=candidate.info.path
    )
