"""A decoder is believed only if it starts as the trusted one does; scaling on a device is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.builders.videos import make_video
from tspcli.errors import VideoError
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.decoders.torchcodec_source import require_same_start, scale_there
from tspcli.video.resize import resize_frame
from tspcli.video.source import Frame, VideoSource, Wanted

Change = Callable[[int, npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]


class StandInFrame(Frame):
    """A frame as a GPU might show it."""

    __slots__ = ("_picture",)

    def __init__(self, pts_s: Fraction, picture: npt.NDArray[np.uint8]) -> None:
        super().__init__(pts_s, None)
        self._picture = picture

    def rgb(self) -> npt.NDArray[np.uint8]:
        return self._picture


class StandIn(VideoSource):
    """Plays the trusted decoder's frames, changed."""

    decoder = "stand-in"

    def __init__(self, path: Path, change: Change, shift: int = 0, keep: int = 1000) -> None:
        with PyavSource(str(path)) as source:
            self.info = source.info
            frames = [(frame.pts_s, frame.rgb().copy()) for frame in source.frames()]
        times = [pts_s for pts_s, _ in frames]
        self._frames = [
            StandInFrame(times[i], change(i, picture)) for i, (_, picture) in enumerate(frames)
        ][shift:keep]

    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        yield from self._frames

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "v.mp4"
    make_video(path, fps=30, n_frames=90, width=96, height=64)
    return path


def test_frames_that_are_rounded_otherwise_are_believed(video: Path) -> None:
    def rounded(index: int, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.clip(picture.astype(int) + (np.arange(96) % 3 - 1)[None, :, None], 0, 255).astype(
            np.uint8
        )

    with PyavSource(str(video)) as trusted:
        require_same_start(StandIn(video, rounded), trusted)


def late(index: int, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return picture if index < 55 else picture[::-1]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a frame early": ({"shift": 1}, "0.000 s"),
    "too few": ({"keep": 40}, "1.333 s"),
    "upside down": ({"change": lambda i, p: p[::-1]}, "0.000 s"),
    "another range": (
        {"change": lambda i, p: (p.astype(int) * 219 // 255 + 16).astype(np.uint8)},
        "0.000 s",
    ),
    "wrong from 1.8 s on": ({"change": late}, "1.833 s"),
    "another size": ({"change": lambda i, p: p[:-2]}, "62, 96"),
}


@pytest.mark.parametrize("case", CASES)
def test_other_frames_are_not_believed(video: Path, case: str) -> None:
    settings, words = CASES[case]
    settings = {"change": lambda i, p: p} | settings
    with PyavSource(str(video)) as trusted, pytest.raises(VideoError, match=words) as caught:
        require_same_start(StandIn(video, **settings), trusted)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(
    "spec",
    [
        FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32"),
        FrameSpec(ResizeSpec(short_side=50), dtype="float32"),
    ],
)
def test_scaling_there_is_scaling_here(spec: FrameSpec) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    found = scale_there(torch.from_numpy(rgb), spec).numpy()
    expected = resize_frame(rgb, spec)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-2


@pytest.mark.gpu
def test_on_a_gpu(video: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    from tspcli.video.decoders import open_with

    spec = FrameSpec(ResizeSpec(32, 48), dtype="float32")
    with open_with(str(video), "torchcodec-cuda") as source, PyavSource(str(video)) as trusted:
        for found, expected in zip(source.frames(), trusted.frames(), strict=True):
            assert np.abs(found.scaled(spec) - expected.scaled(spec)).mean() < 1
