"""torchcodec on a GPU with NVDEC: the pictures stay there, as the hardware leaves them.

A parity gate decides by video: the planes of the first seconds must be those that PyAV decodes on
the CPU (:func:`require_same_start`). What is made of them is then equal, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tspcli.core.text import first_line
from tspcli.errors import DependencyError, VideoError
from tspcli.sampling.yuv import YuvReading, to_rgb
from tspcli.video.decoders.containers import Orientation
from tspcli.video.decoders.indexed_source import IndexedFrame, IndexedSource
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.decoders.torchcodec_source import TorchcodecSource
from tspcli.video.source import VideoSource, YuvPicture, check_file

# ruff: noqa: D102 (the methods are described in source.py)

_BLOCKS = "torchcodec.decoders._blocks"
_SAID = 120
"""Characters of torchcodec's own message that ours repeats before the remedy."""
UNUSABLE_DEVICES: dict[str, str] = {}
"""Devices on which no video can be decoded, and torchcodec's reason; found once per process."""


class TorchcodecCudaSource(IndexedSource):
    """A video decoded on a GPU, whose pictures stay there, if it passes the parity gate.

    torchcodec's own conversion to RGB would round differently from PyAV's, so that the planes are
    used as NVDEC leaves them. It decodes from the first frame on.

    Args:
        path: The file.
        threads: Without effect.
        device: The GPU, such as ``cuda:1``.

    Raises:
        VideoError: As :class:`TorchcodecSource`; ``unsupported`` if NVDEC cannot decode this
            video, its pictures are not 8-bit 4:2:0, or its first seconds differ from those that
            the CPU decodes.
        DependencyError: If there is no GPU, or this torchcodec or this driver cannot decode there.
    """

    decoder = "torchcodec-cuda"

    @classmethod
    def facts(cls) -> dict[str, Any]:
        _require_gpu()
        _blocks()
        return TorchcodecSource.facts()

    def __init__(self, path: str, threads: int = 1, device: str = "cuda") -> None:
        _require_gpu()
        if device in UNUSABLE_DEVICES:
            raise _no_nvdec(device, UNUSABLE_DEVICES[device])
        self._blocks = _blocks()
        super().__init__(path)
        self._name, self._device = check_file(path), device
        self._at = 0
        self._running: Iterator[Any] = iter(())
        self._raw: Any = None
        self._kind: tuple[Any, ...] | None = None
        self._found: tuple[Any, ...] | None = None
        with PyavSource(path) as trusted:
            first = next(iter(trusted.frames())).yuv()
            if first is None:
                raise VideoError(
                    "unsupported",
                    f"frames of {self.info.pixel_format} and {self.info.width} x "
                    f"{self.info.height} are not decoded on the GPU",
                    path=path,
                )
            self.surface = first.format
            self._require_hardware()
            self._begin()
            require_same_start(self, trusted)

    def frame(self, index: int, pts_s: Fraction, duration_s: Fraction | None) -> IndexedFrame:
        return SurfaceFrame(pts_s, duration_s, index, self)

    def decode(self, index: int) -> npt.NDArray[np.uint8]:
        raise NotImplementedError  # picture() is replaced

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The picture of the frame with a number, converted as swscale does."""
        coded = self.coded(index)
        luma, *chroma = coded.planes
        height, width = luma.shape
        blue, red = (p.repeat(2, 0).repeat(2, 1)[:height, :width] for p in chroma)
        turn = Orientation(self.info.rotation_deg, self.info.mirrored)
        return turn.apply(to_rgb(luma, blue, red, coded.format.tables))

    def coded(self, index: int) -> YuvPicture:
        """The planes of the frame with a number, copied to the host."""
        assert self.surface is not None
        planes = tuple(plane.cpu().numpy() for plane in self.planes(index))
        return YuvPicture(self.surface, planes)

    def planes(self, index: int) -> tuple[Any, ...]:
        """Y, U and V of the frame with a number: torch tensors (rows, columns), uint8, on the GPU.

        Raises:
            VideoError: ``damaged`` if it cannot be decoded, has another time or is of another kind
                than the first.
        """
        if index < self._at - 1:
            self._begin()
        try:
            while self._at <= index:
                self._raw = next(self._running)
                self._at += 1
        except StopIteration:
            raise VideoError(
                "damaged", f"the GPU decodes {self._at} frames only", path=self.info.path
            ) from None
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                "damaged", f"frame {index}: {first_line(error)}", path=self.info.path
            ) from error
        raw = self._raw
        self.check_time(index, float(raw.pts_seconds))
        kind = raw.pixel_format, raw.color_space, raw.color_range, raw.width, raw.height
        self._kind = self._kind or kind
        if kind != self._kind:
            raise VideoError("damaged", f"frame {index} is {kind}", path=self.info.path)
        return tuple(raw.planes)

    def index_of(self, reading: YuvReading, planes: tuple[Any, ...]) -> tuple[Any, ...]:
        """Where in the planes' memory the samples of a reading lie, on the GPU; kept."""
        strides = tuple((plane.stride(0), plane.stride(1)) for plane in planes)
        if self._found is None or self._found[:2] != (reading, strides):
            torch: Any = importlib.import_module("torch")
            index = torch.from_numpy(reading.strided_index(strides)).int().flatten(1)
            if planes[0].device.type != "cpu":
                index = index.pin_memory().to(planes[0].device, non_blocking=True)
            self._found = reading, strides, index.unbind(0)
        found: tuple[Any, ...] = self._found[2]
        return found

    def close(self) -> None:
        self._running, self._raw = iter(()), None

    def _begin(self) -> None:
        """Decode from the first frame on."""
        self._at, self._raw, self._kind = 0, None, None
        self._running = self._decoded()

    def _decoded(self) -> Iterator[Any]:
        demuxer = self._blocks.Demuxer(self._name, streams=self.info.stream_index)
        decoder = demuxer.streams[0].make_decoder(device=self._device)
        for packet in demuxer:
            yield from decoder.decode(packet)
        yield from decoder.drain()

    def _require_hardware(self) -> None:
        """Refuse the CPU: without NVDEC, torchcodec silently decodes there."""
        device, info = self._device, self.info
        fallback = _Probe(info.path, device).fallback
        if not fallback:
            return
        if getattr(fallback, "_nvcuvid_unavailable", False) or "nvcuvid" in str(fallback).lower():
            UNUSABLE_DEVICES[device] = str(fallback)
            raise _no_nvdec(device, str(fallback))
        raise VideoError(
            "unsupported",
            f"NVDEC on {device} does not decode {info.codec} {info.pixel_format} of "
            f"{info.width} x {info.height}: {fallback}",
            path=info.path,
        )


class SurfaceFrame(IndexedFrame):
    """A frame whose picture stays on the GPU that decodes it."""

    __slots__ = ()
    _source: TorchcodecCudaSource

    def yuv(self) -> YuvPicture | None:
        return self._source.coded(self._index)

    def samples(self, reading: YuvReading) -> Any:
        torch: Any = importlib.import_module("torch")
        source = self._source
        planes = source.planes(self._index)
        source.n_decoded += 1
        gathered = [
            _memory_of(plane).index_select(0, index)
            for plane, index in zip(planes, source.index_of(reading, planes), strict=True)
        ]
        return torch.cat(gathered)


def _memory_of(plane: Any) -> Any:
    """The memory of a plane from its first sample to its last, as one axis."""
    rows, columns = plane.shape
    size = (rows - 1) * plane.stride(0) + (columns - 1) * plane.stride(1) + 1
    return plane.as_strided((size,), (1,), plane.storage_offset())


class _Probe(TorchcodecSource):
    """torchcodec's usual decoder on a GPU, which says where it really decodes."""

    def __init__(self, path: str, device: str) -> None:
        self._open(path, 1, device)
        self.decode_there(0)

    @property
    def fallback(self) -> Any:
        return getattr(self._reader, "cpu_fallback", None)

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


def _blocks() -> Any:
    """The part of torchcodec that gives planes."""
    try:
        return importlib.import_module(_BLOCKS)
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            f"torchcodec cannot give planes: {first_line(error).rstrip('.')}.",
            remedy="torchcodec-cuda needs torchcodec 0.17 or later and FFmpeg's shared libraries "
            "(Debian: apt-get install ffmpeg); or use --decoder auto.",
        ) from error


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


CHECKED_S = Fraction(2)
"""How many seconds of every video are compared."""
PICTURE_EVERY = 5
"""The times of all those frames are compared, and the pictures of every fifth."""


def require_same_start(candidate: VideoSource, trusted: VideoSource) -> None:
    """Compare the first seconds of a video as decoded by two decoders: the planes must be equal.

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
        ours, other = expected.yuv(), found.yuv()
        if ours is None or other is None or ours.format != other.format:
            formats = [None if each is None else each.format for each in (other, ours)]
            _refuse(candidate, f"{where} its picture is {formats[0]}, not {formats[1]}")
        for name, mine, its in zip("YUV", ours.planes, other.planes, strict=True):
            if mine.shape != its.shape:
                _refuse(candidate, f"{where} its {name} plane is {its.shape}, not {mine.shape}")
            apart = np.abs(mine.astype(np.int16) - its)
            if apart.any():
                _refuse(
                    candidate,
                    f"{where} {np.count_nonzero(apart)} samples of {name} differ, by "
                    f"{apart.max()} at most",
                )


def _refuse(candidate: VideoSource, why: str) -> NoReturn:
    raise VideoError(
        "unsupported", f"{candidate.decoder} disagrees with PyAV: {why}", path=candidate.info.path
    )
