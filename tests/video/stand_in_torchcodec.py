"""Plays torchcodec on machines without a GPU: PyAV's pictures, and a note of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch

from tspcli.video.decoders import torchcodec_cuda_source
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.source import Frame

Spoil = Callable[[str, int, "Surface"], object]
"""Called with a file's name, a frame's number and its surface, which it may change."""


@dataclass
class _Decoded:
    data: torch.Tensor
    pts_seconds: float


@dataclass
class _Metadata:
    num_frames: int


class _Fallback:
    """torchcodec's word on whether it decodes on the CPU instead."""

    def __init__(self, words: str | None) -> None:
        self._words = words

    def __bool__(self) -> bool:
        return self._words is not None

    def __str__(self) -> str:
        return self._words or "[CUDA] Fallback status: No fallback required"


@dataclass
class Surface:
    """A decoded picture in NV12: U and V in turns, and rows that are padded."""

    frame: Frame
    device: str
    width: int = 0
    height: int = 0
    pixel_format: str = "nv12"
    color_space: str = "bt709"
    color_range: str = "tv"
    memory: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        picture = self.frame.yuv()
        if picture is None:
            self.pixel_format = "p010le"
            return
        luma, blue, red = picture.planes
        self.height, self.width = luma.shape
        memory = torch.empty(
            (self.height + len(blue), -(-self.width // 64) * 64),
            dtype=torch.uint8,
            pin_memory=self.device != "cpu",
        )
        rows = memory.numpy()
        rows[: self.height, : self.width] = luma
        chroma = rows[self.height :, : 2 * blue.shape[1]]
        chroma[:, 0::2], chroma[:, 1::2] = blue, red
        self.memory = memory.to(self.device, non_blocking=True)

    @property
    def pts_seconds(self) -> float:
        return float(self.frame.pts_s)

    @property
    def planes(self) -> tuple[torch.Tensor, ...]:
        chroma = self.memory[self.height :, : -(-self.width // 2) * 2]
        luma = self.memory[: self.height, : self.width]
        return luma, chroma[:, 0::2], chroma[:, 1::2]


class StandInTorchcodec:
    """What it was asked for, and what it shall answer.

    Attributes:
        devices: Those on which a video was opened.
        refusal: What opening on a GPU raises.
        fallback: What it says of decoding on the CPU instead.
        spoil: Changes what hardware decodes, or fails.
        on_device: Whether pictures are on the device, which is then simulated, or on the CPU.
    """

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.refusal: Exception | None = None
        self.fallback: str | None = None
        self.spoil: Spoil = lambda name, number, surface: None
        self.on_device = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the package, and for a GPU, until the test is over."""
        modules = __import__("sys").modules
        decoders: Any = ModuleType("torchcodec.decoders")
        decoders.VideoDecoder = self.open
        blocks: Any = ModuleType("torchcodec.decoders._blocks")
        blocks.Demuxer = self.demux
        monkeypatch.setitem(modules, "torchcodec.decoders", decoders)
        monkeypatch.setitem(modules, "torchcodec.decoders._blocks", blocks)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torchcodec_cuda_source, "UNUSABLE_DEVICES", {})

    def open(self, name: str, *, device: str, **_: Any) -> _Decoder:
        self.devices.append(device)
        if device != "cpu" and self.refusal is not None:
            raise self.refusal
        return _Decoder(name, self.fallback if device != "cpu" else None)

    def demux(self, name: str, *, streams: int) -> _Demuxer:
        return _Demuxer(name, self.spoil, self.on_device)


class _Decoder:
    def __init__(self, name: str, fallback: str | None) -> None:
        with PyavSource(name) as source:
            self._frames = [
                _Decoded(torch.from_numpy(frame.rgb().copy()), float(frame.pts_s))
                for frame in source.frames()
            ]
        self.metadata = _Metadata(len(self._frames))
        self.cpu_fallback = _Fallback(fallback)

    def get_frame_at(self, index: int) -> _Decoded:
        return self._frames[index]


class _Demuxer:
    """Its packets are frames' numbers; the decoder gives each a packet later, as real ones do."""

    def __init__(self, name: str, spoil: Spoil, on_device: bool) -> None:
        self._name, self._spoil, self._on_device = name, spoil, on_device
        self.streams = [self]

    def make_decoder(self, *, device: str) -> _Demuxer:
        self._device = device if self._on_device else "cpu"
        self._frames = self._surfaces()
        return self

    def __iter__(self) -> Iterator[int]:
        with PyavSource(self._name) as source:
            yield from range(sum(1 for _ in source.frames()))

    def decode(self, packet: int) -> list[Surface]:
        return [next(self._frames)] if packet else []

    def drain(self) -> list[Surface]:
        return list(self._frames)

    def _surfaces(self) -> Iterator[Surface]:
        with PyavSource(self._name) as source:
            for number, frame in enumerate(source.frames()):
                surface = Surface(frame, self._device)
                self._spoil(self._name, number, surface)
                yield surface


def darker(surface: Surface) -> None:
    """Change one sample of Y by one."""
    surface.memory[0, 0] = surface.memory[0, 0] ^ 1
