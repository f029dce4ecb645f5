"""Plays torchcodec on machines without a GPU: PyAV's frames, and a note of the device."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from tspcli.video.decoders import torchcodec_source
from tspcli.video.decoders.pyav_source import PyavSource


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


class StandInTorchcodec:
    """What it was asked for, and what it shall answer.

    Attributes:
        devices: Those on which a video was opened.
        refusal: What opening on a GPU raises.
        fallback: What it says of decoding on the CPU instead.
    """

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.refusal: Exception | None = None
        self.fallback: str | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the package, and for a GPU, until the test is over."""
        module: Any = ModuleType("torchcodec.decoders")
        module.VideoDecoder = self.open
        monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", module)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torchcodec_source, "UNUSABLE_DEVICES", {})

    def open(self, name: str, *, device: str, **_: Any) -> _Decoder:
        self.devices.append(device)
        if device != "cpu" and self.refusal is not None:
            raise self.refusal
        return _Decoder(name, self.fallback if device != "cpu" else None)


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
