"""A decoder is believed only if its planes are PyAV's; of planes come PyAV's frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.videos import make_video
from tests.video.coded import frame_of
from tests.video.pools import usable
from tests.video.stand_in_torchcodec import StandInTorchcodec
from tspcli.encoders.yuv_frames import YuvFrames
from tspcli.errors import VideoError
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvReading
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.decoders.torchcodec_cuda_source import TorchcodecCudaSource, require_same_start
from tspcli.video.source import Frame, VideoSource, Wanted, YuvPicture

SPEC = FrameSpec(ResizeSpec(32, 48), crop=(24, 24), dtype="float32")

Change = Callable[[int, YuvPicture], YuvPicture]


class StandInFrame(Frame):
    """A frame as a GPU might show it."""

    __slots__ = ("_picture",)

    def __init__(self, pts_s: Fraction, picture: YuvPicture) -> None:
        super().__init__(pts_s, None)
        self._picture = picture

    def yuv(self) -> YuvPicture | None:
        return self._picture


class StandIn(VideoSource):
    """Plays the trusted decoder's frames, changed."""

    decoder = "stand-in"

    def __init__(self, path: Path, change: Change, shift: int = 0, keep: int = 1000) -> None:
        self._frames = []
        with PyavSource(str(path)) as source:
            self.info = source.info
            for number, frame in enumerate(source.frames()):
                picture = frame.yuv()
                assert picture is not None
                copied = tuple(plane.copy() for plane in picture.planes)
                shown = change(number, YuvPicture(picture.format, copied))
                self._frames.append(StandInFrame(frame.pts_s, shown))
        self._frames = self._frames[shift:keep]

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


def with_planes(number: int, picture: YuvPicture, change: Callable[[Any], Any]) -> YuvPicture:
    return picture._replace(planes=tuple(change(plane) for plane in picture.planes))


def upside_down(number: int, picture: YuvPicture) -> YuvPicture:
    return with_planes(number, picture, lambda plane: plane[::-1])


def late(number: int, picture: YuvPicture) -> YuvPicture:
    return picture if number < 55 else upside_down(number, picture)


def one_sample_by_one(number: int, picture: YuvPicture) -> YuvPicture:
    picture.planes[2][-1, -1] ^= 1
    return picture


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a frame early": ({"shift": 1}, "0.000 s"),
    "too few": ({"keep": 40}, "1.333 s"),
    "upside down": ({"change": upside_down}, "0.000 s"),
    "wrong from 1.8 s on": ({"change": late}, "1.833 s"),
    "one sample by one": ({"change": one_sample_by_one}, "1 samples of V differ, by 1"),
    "another size": (
        {"change": lambda n, picture: with_planes(n, picture, lambda plane: plane[:-2])},
        "62, 96",
    ),
}


def test_equal_planes_are_believed(video: Path) -> None:
    with PyavSource(str(video)) as trusted:
        require_same_start(StandIn(video, lambda number, picture: picture), trusted)


@pytest.mark.parametrize("case", CASES)
def test_other_frames_are_not_believed(video: Path, case: str) -> None:
    settings, words = CASES[case]
    settings = {"change": lambda number, picture: picture} | settings
    with PyavSource(str(video)) as trusted, pytest.raises(VideoError, match=words) as caught:
        require_same_start(StandIn(video, **settings), trusted)
    assert caught.value.reason == "unsupported"


VIDEOS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "many-b-frames.mkv": {"b_frames": 7, "options": {"preset": "slow"}},
    "variable.mp4": {"times": [0, 1, 2, 10, 30, 31, 90, 121], "time_base": Fraction(1, 90)},
    "hevc.mp4": {"codec": "libx265"},
    "vp9.webm": {"codec": "libvpx-vp9", "width": 66, "height": 50},
    "full-range.mp4": {"pixel_format": "yuvj420p", "color_range": 2},
    "turned.mp4": {"rotation_deg": 90, "width": 48, "height": 64},
    "mirrored.mp4": {"mirrored": True, "rotation_deg": 270, "width": 48, "height": 64},
    "audio-first.mp4": {"audio": True},
    "small-first.mp4": {"second_stream": (32, 32)},
}


def same_frames(path: Path) -> None:
    with TorchcodecCudaSource(str(path), device="cpu") as source, PyavSource(str(path)) as trusted:
        assert source.surface is not None
        frames = YuvFrames(YuvReading(source.surface, SPEC), torch.device("cpu"))
        count = 0
        for found, expected in zip(source.frames(), trusted.frames(), strict=True):
            assert found.pts_s == expected.pts_s
            picture = expected.yuv()
            assert picture is not None
            samples = found.samples(YuvReading(source.surface, SPEC))
            assert (frames.from_samples(samples[None])[0].numpy() == frame_of(picture, SPEC)).all()
            assert (found.rgb() == expected.rgb()).all()
            count += 1
        assert source.n_decoded >= count
        # Again, and from the middle.
        times = [frame.pts_s for frame in source.frames()]
        assert next(source.frames(times[4])).pts_s == times[4]


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_of_planes_are_pyavs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torchcodec itself, whose planes on a CPU are laid out otherwise."""
    usable("torchcodec")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    same_frames(make_video(tmp_path / name, **{"n_frames": 20, **VIDEOS[name]}))


def test_frames_of_a_hardware_s_surfaces_are_pyavs(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StandInTorchcodec().install(monkeypatch)
    same_frames(video)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fine.mp4", {"pixel_format": "yuv444p"}),
        ("odd.webm", {"codec": "libvpx-vp9", "height": 49}),
    ],
)
def test_other_formats_are_left_to_the_cpu(
    tmp_path: Path, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torchcodec = StandInTorchcodec()
    torchcodec.install(monkeypatch)
    with pytest.raises(VideoError, match="not decoded on the GPU") as caught:
        TorchcodecCudaSource(str(make_video(tmp_path / name, **options)))
    assert caught.value.reason == "unsupported"
    # The hardware is not even asked.
    assert not torchcodec.devices


def test_pictures_that_change_are_a_fault_of_the_video(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchcodec = StandInTorchcodec()
    torchcodec.install(monkeypatch)

    def change(name: str, number: int, surface: Any) -> None:
        if number == 70:
            surface.color_range = "pc"

    torchcodec.spoil = change
    with TorchcodecCudaSource(str(video)) as source:
        frames = list(source.frames())
        assert frames[69].rgb().shape == (64, 96, 3)
        with pytest.raises(VideoError) as caught:
            frames[70].rgb()
    assert caught.value.reason == "damaged"


@pytest.mark.gpu
def test_on_a_gpu(video: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    from tspcli.video.decoders import open_with

    spec = FrameSpec(ResizeSpec(32, 48), dtype="float32")
    with open_with(str(video), "torchcodec-cuda") as source, PyavSource(str(video)) as trusted:
        for found, expected in zip(source.frames(), trusted.frames(), strict=True):
            assert np.abs(found.scaled(spec) - expected.scaled(spec)).max() == 0
