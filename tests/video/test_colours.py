"""Colourful videos of many formats: every decoder gives the pixels of the ffmpeg program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.video.coded import frame_of
from tests.video.pools import usable_of
from tspcli.errors import VideoError
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DECODERS, open_source

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed"
)

X264 = ("-c:v", "libx264")
X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")
SOURCE = "testsrc2=size=160x120:rate=25:duration=0.32"
FIELDS = ("-flags", "+ildct+ilme")
KINDS: dict[str, tuple[str, ...]] = {
    "progressive.mp4": (*X264, "-pix_fmt", "yuv420p"),
    "chroma-top-left.mp4": (*X264, "-pix_fmt", "yuv420p", "-x264-params", "chromaloc=2"),
    "chroma-bottom-left.mkv": (*X264, "-pix_fmt", "yuv420p", "-x264-params", "chromaloc=4"),
    "interlaced.mp4": (*X264, *FIELDS, "-x264-params", "interlaced=1", "-pix_fmt", "yuv420p"),
    "interlaced-bff.mkv": (*X264, *FIELDS, "-x264-params", "bff=1", "-pix_fmt", "yuv420p"),
    "interlaced.mpg": ("-c:v", "mpeg2video", *FIELDS, "-pix_fmt", "yuv420p"),
    "interlaced.ts": ("-c:v", "mpeg2video", *FIELDS, "-pix_fmt", "yuv420p"),
    "interlaced-422.mp4": (*X264, *FIELDS, "-x264-params", "interlaced=1", "-pix_fmt", "yuv422p"),
    "422.mkv": (*X264, "-pix_fmt", "yuv422p"),
    "full-range.avi": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "10-bit.mp4": (*X265, "-pix_fmt", "yuv420p10le"),
    "10-bit-chroma-top-left.mp4": (
        *X265[:-1],
        "log-level=none:chromaloc=2",
        "-pix_fmt",
        "yuv420p10",
    ),
    "10-bit-422.mp4": (*X264, "-pix_fmt", "yuv422p10le"),
    "10-bit-444.mp4": (*X264, "-pix_fmt", "yuv444p10le"),
    "dv-411.avi": ("-s", "720x480", "-r", "30000/1001", "-c:v", "dvvideo", "-pix_fmt", "yuv411p"),
    "dv-420.avi": ("-s", "720x576", "-r", "25", "-c:v", "dvvideo", "-pix_fmt", "yuv420p"),
    "odd.webm": ("-s", "161x121", "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p"),
}
# decord's own, older FFmpeg converts 4:2:0 of odd size or 10 bit otherwise.
BOUNDS = {("decord", name): 3 for name in ("10-bit.mp4", "10-bit-chroma-top-left.mp4", "odd.webm")}


# Of these it loses the first frames, and says so.
REFUSED = {
    "decord": {"interlaced.mpg", "interlaced.ts", "full-range.avi", "dv-411.avi", "dv-420.avi"},
    "torchcodec": {"interlaced.mpg", "interlaced.ts"},
}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_those_of_ffmpeg(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _ffmpeg("-f", "lavfi", "-i", SOURCE, *KINDS[name], str(path))
    words = ("-i", str(path), "-vsync", "0", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    pixels = np.frombuffer(_ffmpeg(*words), np.uint8)
    for decoder in usable_of(DECODERS):
        try:
            with open_source(path, decoder) as opened:
                ours = np.stack([frame.rgb().copy() for frame in opened.frames()])
        except VideoError:
            if name not in REFUSED.get(decoder, ()):
                raise
            continue
        theirs = pixels.reshape(-1, *ours.shape[1:])
        difference = np.abs(ours.astype(np.int16) - theirs[: len(ours)])
        assert difference.mean() <= BOUNDS.get((decoder, name), 0), decoder


# Of 8 bits and 4:2:0, with an even height: interlaced or not, wherever the chroma samples are.
CODED = ["progressive.mp4", "chroma-top-left.mp4", "chroma-bottom-left.mkv", "interlaced.mp4"]
CODED += ["interlaced-bff.mkv", "interlaced.mpg", "interlaced.ts", "full-range.avi", "dv-420.avi"]


@pytest.mark.parametrize("name", KINDS)
def test_coded_pictures_have_the_same_pixels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _ffmpeg("-f", "lavfi", "-i", SOURCE, *KINDS[name], str(path))
    with open_source(path, "pyav") as opened:
        for frame in opened.frames():
            picture = frame.yuv()
            assert (picture is not None) == (name in CODED)
            if picture is not None:
                rgb = frame.rgb()
                whole = FrameSpec(ResizeSpec(*rgb.shape[:2]), dtype="float32")
                assert (frame_of(picture, whole) == rgb).all()


def _ffmpeg(*words: str) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *words], capture_output=True, check=True
    ).stdout
