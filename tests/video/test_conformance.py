"""What every decoder must do alike; a new one is tested by being in the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.videos import make_video, read_number
from tests.video.coded import frame_of
from tests.video.pools import usable, usable_of
from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import (
    DECODERS,
    open_source,
    read_clip,
    sampled_frames,
)

EXACT = (0, 0.0)
# decord's own, older FFmpeg converts 4:2:0 of odd size or 10 bit otherwise.
CHROMA = (32, 1.0)
SPEC = FrameSpec(ResizeSpec(32, 43))
SHIFTED = (".avi", ".mpg", ".ts", ".vob")


@dataclass
class Case:
    """One kind of video.

    Attributes:
        file: Name of the file; the suffix chooses the container.
        options: For the generator.
        bound: Largest and mean difference of decord's pixels from PyAV's, of 255; the others'
            are equal.
        refused_by: Decoders that must say that they cannot, rather than give something wrong.
        n_parts: How many copies are joined, so that the clock starts again.
    """

    file: str
    options: dict[str, Any] = field(default_factory=dict)
    bound: tuple[int, float] = EXACT
    refused_by: tuple[str, ...] = ()
    n_parts: int = 1

    def __str__(self) -> str:
        return self.file


VARIABLE = [0, 1, 2, 10, 11, 30, 31, 32, 33, 90, 91, 95, 120, 121, 122, 200]
CASES = [
    Case("plain.mp4"),
    Case("without-b-frames.mp4", {"b_frames": 0}),
    Case("many-b-frames.mp4", {"b_frames": 7, "options": {"preset": "slow"}}),
    Case("ntsc.mkv", {"fps": Fraction(30000, 1001)}),
    Case("variable.mp4", {"times": VARIABLE, "time_base": Fraction(1, 90)}),
    Case("variable.mkv", {"times": VARIABLE, "time_base": Fraction(1, 90)}),
    Case("offset.mp4", {"start": 75}),
    Case("offset-audio.mkv", {"start": 75, "audio": True}),
    Case("audio-first.mp4", {"audio": True}),
    Case("rotated-90.mp4", {"rotation_deg": 90, "width": 48, "height": 64}),
    Case("rotated-180.mp4", {"rotation_deg": 180}),
    Case("rotated-270.mp4", {"rotation_deg": 270, "width": 96, "height": 64}),
    Case("mirrored-0.mp4", {"mirrored": True}),
    Case("mirrored-90.mp4", {"mirrored": True, "rotation_deg": 90, "width": 48, "height": 64}),
    Case("mirrored-180.mkv", {"mirrored": True, "rotation_deg": 180}),
    Case("mirrored-270.mov", {"mirrored": True, "rotation_deg": 270, "width": 96, "height": 64}),
    Case(
        "nearly-180.mp4",
        {"rotation_deg": 180, "display_matrix": (-1, 0.001, -0.001, -1)},
        refused_by=("decord",),
    ),
    Case(
        "nearly-90.mp4",
        {
            "rotation_deg": 90,
            "display_matrix": (0.004, 1, -1, 0.004),
            "width": 48,
            "height": 64,
        },
        refused_by=("decord",),
    ),
    Case("422.mp4", {"pixel_format": "yuv422p"}),
    Case("444-odd.mp4", {"pixel_format": "yuv444p", "width": 65, "height": 49}),
    Case("420-odd.webm", {"codec": "libvpx-vp9", "width": 65, "height": 49}, CHROMA),
    Case("10-bit.mp4", {"pixel_format": "yuv420p10le"}, CHROMA),
    Case("hevc.mp4", {"codec": "libx265"}),
    Case("open-gop.mp4", {"b_frames": 3, "options": {"x264-params": "open-gop=1"}}),
    Case("hevc-long.mp4", {"codec": "libx265", "gop": 24, "b_frames": 4}),
    Case("full-range.mp4", {"pixel_format": "yuvj420p", "color_range": 2}),
    Case("small-first.mp4", {"second_stream": (32, 32)}),
    Case("preview-first.mp4", {"second_stream": (128, 96), "default_streams": (False, True)}),
    Case(
        "preview-first.mkv",
        {"second_stream": (128, 96), "default_streams": (False, True)},
        refused_by=("decord",),
    ),
    Case(
        "no-default.mkv",
        {"second_stream": (48, 48), "default_streams": (False, False)},
        refused_by=("decord",),
    ),
    Case(
        "two-angles.mp4",
        {"second_stream": (64, 48), "default_streams": (False, True)},
        refused_by=("decord",),
    ),
    Case("h264.avi", refused_by=("decord", "torchcodec")),
    Case("mpeg4.avi", {"codec": "mpeg4"}, refused_by=("decord", "torchcodec")),
    Case("h264.ts", {"fps": 25}, refused_by=("decord", "torchcodec")),
    Case("stepped.ts", {"b_frames": 3}, refused_by=("decord", "torchcodec"), n_parts=2),
    Case(
        "stepped-streams.ts",
        {"second_stream": (32, 32)},
        refused_by=("decord", "torchcodec"),
        n_parts=2,
    ),
    Case("stepped.mpg", {"codec": "mpeg2video"}, refused_by=("decord", "torchcodec"), n_parts=3),
    Case("stepped.vob", {"codec": "mpeg2video"}, refused_by=("decord", "torchcodec"), n_parts=2),
    Case("interlaced.mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def video(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Path]:
    case: Case = request.param
    path = make_video(tmp_path_factory.mktemp("video") / case.file, **case.options)
    path.write_bytes(path.read_bytes() * case.n_parts)
    return case, path


@pytest.fixture(params=usable_of(DECODERS))
def decoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_works_here(name: str) -> None:
    """The other tests run with those that do; what is wrong with the others shows once, here."""
    assert usable(name) == name


def is_refused(case: Case, path: Path, decoder: str) -> bool:
    """Whether this decoder has to say that it cannot read the file; then it must say so."""
    if decoder not in case.refused_by:
        return False
    with pytest.raises(VideoError):
        look_at_all(path, decoder)
    return True


def look_at_all(path: Path, decoder: str) -> None:
    with open_source(path, decoder) as source:
        for frame in source.frames():
            frame.rgb()


def expected_times(case: Case, path: Path) -> list[Fraction]:
    """The frames' times, by what was written."""
    options = case.options
    rate = Fraction(options.get("fps", 30))
    base = options.get("time_base") or 1 / rate
    times = options.get("times") or range(60 * case.n_parts)
    return [(time + options.get("start", 0)) * base for time in times]


def test_every_frame_comes_in_order_with_its_number_and_exact_time(
    video: tuple[Case, Path], decoder: str
) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    with open_source(path, decoder) as source:
        frames = [(frame.pts_s, read_number(frame.rgb())) for frame in source.frames()]
        base = source.info.time_base
    times = expected_times(case, path)
    n_numbers = len(times) // case.n_parts
    assert [number for _, number in frames] == list(range(n_numbers)) * case.n_parts
    # These muxers shift all times alike.
    shift_s = frames[0][0] - times[0] if path.suffix in SHIFTED else 0
    for (pts_s, _), time_s in zip(frames, times, strict=True):
        assert isinstance(pts_s, Fraction)
        assert abs(pts_s - shift_s - time_s) <= base / 2


def test_decoders_agree_on_samples_times_and_pixels(video: tuple[Case, Path], decoder: str) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    for frame_rate in (Fraction(15), Fraction(6)):
        assert_agrees_with_pyav(case, path, decoder, Sampling(frame_rate=frame_rate))


def assert_agrees_with_pyav(case: Case, path: Path, decoder: str, sampling: Sampling) -> None:
    with open_source(path, decoder) as source, open_source(path, "pyav") as reference:
        ours = sampled_frames(source, sampling)
        theirs = sampled_frames(reference, sampling)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine.ticks, mine.pts_s) == (other.ticks, other.pts_s)
            difference = np.abs(
                mine.frame.rgb().astype(np.int16) - other.frame.rgb().astype(np.int16)
            )
            largest, mean = case.bound if decoder == "decord" else EXACT
            assert difference.max() <= largest
            assert difference.mean() <= mean
        assert (ours.n_ticks, ours.n_frames) == (theirs.n_ticks, theirs.n_frames)
        assert ours.start_s == theirs.start_s
        # Without a duration in the file the index knows the last frame's alone.
        assert abs(ours.end_s - theirs.end_s) < Fraction(1, 30)


def test_coded_pictures_give_the_same_pixels(video: tuple[Case, Path]) -> None:
    """Bit for bit before scaling, and the same frames after it; other formats have none."""
    case, path = video
    scaled = FrameSpec(ResizeSpec(32, 43), crop=(24, 24), dtype="float32")
    n_coded = 0
    with open_source(path, "pyav") as source:
        for frame in source.frames():
            picture = frame.yuv()
            if picture is None:
                continue
            n_coded += 1
            rgb = frame.rgb()
            whole = FrameSpec(ResizeSpec(*rgb.shape[:2]), dtype="float32")
            assert (frame_of(picture, whole) == rgb).all()
            assert np.abs(frame_of(picture, scaled) - frame.scaled(scaled)).max() < 1e-4
    coded_otherwise = case.file in ("422.mp4", "444-odd.mp4", "420-odd.webm", "10-bit.mp4")
    assert (n_coded > 0) != coded_otherwise


def test_facts_agree_with_the_frames(video: tuple[Case, Path], decoder: str) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    with open_source(path, decoder) as source:
        shape = next(iter(source.frames())).rgb().shape
    options = case.options
    assert (source.info.height, source.info.width, 3) == shape
    assert shape[:2] == (options.get("height", 48), options.get("width", 64))
    assert source.info.rotation_deg == options.get("rotation_deg", 0)
    assert source.info.mirrored == options.get("mirrored", False)


def test_frames_can_be_read_twice(video: tuple[Case, Path], decoder: str) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    with open_source(path, decoder) as source:
        first = [(frame.pts_s, frame.rgb().sum()) for frame in source.frames()]
        again = [(frame.pts_s, frame.rgb().sum()) for frame in source.frames()]
    assert first == again


def test_starting_at_any_time_gives_the_frame_shown_there(
    video: tuple[Case, Path], decoder: str
) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    with open_source(path, decoder) as source:
        times = [frame.pts_s for frame in source.frames()]
        for index in (0, 1, 7, len(times) // 2, len(times) - 2, len(times) - 1):
            inside_s = times[index] + Fraction(1, 1000)
            for start_s in (times[index], inside_s):
                frames = source.frames(start_s)
                some = [next(frames) for _ in range(min(3, len(times) - index))]
                assert [frame.pts_s for frame in some] == times[index : index + 3]
                number = (index + len(some) - 1) % (len(times) // case.n_parts)
                assert read_number(some[-1].rgb()) == number
        assert next(source.frames(times[0] - 1)).pts_s == times[0]
        assert next(source.frames(times[-1] + 100)).pts_s == times[-1]


CLIPS = [
    Sampling(clip_length=4, stride=4),
    Sampling(clip_length=4, stride=7),
    Sampling(frame_rate=Fraction(6), clip_length=3, stride=1),
    Sampling(frame_rate=Fraction(25, 2), clip_length=4, stride=3),
]
"""Every frame, gaps, few frames, and a rate that does not divide the grid's."""


def test_a_clip_read_anywhere_is_the_clip_of_the_whole_video(
    video: tuple[Case, Path], decoder: str
) -> None:
    case, path = video
    if is_refused(case, path, decoder):
        return
    for sampling in CLIPS:
        assert_clips_are_those_of_the_whole(path, decoder, sampling)


def assert_clips_are_those_of_the_whole(path: Path, decoder: str, sampling: Sampling) -> None:
    with open_source(path, decoder) as source:
        shown = {}
        frames = sampled_frames(source, sampling)
        for sampled in frames:
            picture = sampled.frame.scaled(SPEC).copy()
            shown.update(dict.fromkeys(sampled.ticks, picture))
        n_clips = sampling.n_clips(frames.n_ticks)
        assert n_clips >= 3
        for clip in sorted({0, 1, n_clips // 2, n_clips - 1}):
            ticks = sampling.clip_ticks(clip)
            start_s = ticks[0] / sampling.grid_rate
            read = read_clip(source, start_s, sampling, SPEC)
            assert (read == np.stack([shown[tick] for tick in ticks])).all()


def test_past_the_end_the_last_frame_is_repeated(tmp_path: Path, decoder: str) -> None:
    path = make_video(tmp_path / "v.mp4", n_frames=30)
    with open_source(path, decoder) as source:
        clip = read_clip(source, 0.8, Sampling(), FrameSpec(ResizeSpec(48, 64)))
    assert [read_number(frame) for frame in clip] == [24, 26, 28] + [29] * 13
