"""Files that are no good: each ends as one named reason, or as what can be had of it."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.builders.videos import make_sound, make_video
from tspcli.errors import VIDEO_REASONS, VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DecodePool, Failed, Finished, Frames, VideoFile, open_source, probe
from tspcli.video.decoders import combine_failures

SPEC = FrameSpec(ResizeSpec(24, 32))


def outcome(paths: list[Path], **options: Any) -> dict[str, Finished | Failed]:
    """How each file ends in the pool."""
    jobs = [VideoFile(path, path.name) for path in paths]
    ends: dict[str, Finished | Failed] = {}
    with DecodePool(
        jobs,
        sampling=Sampling(),
        spec=SPEC,
        workers=2,
        timeout_s=20.0,
        **options,
    ) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, (Finished, Failed)):
                ends[event.job.key] = event
    return ends


def missing(path: Path) -> None:
    assert not path.exists()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("This is no video.\n" * 100)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(100_000))


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sound_alone(path: Path) -> None:
    make_sound(path)


def header_alone(path: Path) -> None:
    whole = make_video(path.with_name("whole.mp4"), container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])


def no_index(path: Path) -> None:
    data = make_video(path.with_name("whole.mp4")).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def all_packets_zeroed(path: Path) -> None:
    data = bytearray(make_video(path).read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def huge(path: Path) -> None:
    """A raw video whose header announces frames of 30000 x 30000."""
    path.write_bytes(b"YUV4MPEG2 W30000 H30000 F30:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(10_000))


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (missing, {"missing"}),
        (empty, {"empty"}),
        (folder, {"unreadable"}),
        (fifo, {"unreadable"}),
        (text, {"not-a-video"}),
        (noise, {"not-a-video"}),
        (sound_alone, {"no-video-stream"}),
        (header_alone, {"no-frames", "damaged"}),
        (no_index, {"damaged"}),
        (all_packets_zeroed, {"no-frames"}),
        (huge, {"unsupported", "no-frames", "not-a-video"}),
    ],
)
def test_a_bad_file_has_a_name_for_it(
    tmp_path: Path, spoil: Callable[[Path], None], reasons: set[str]
) -> None:
    path = tmp_path / f"bad{'.y4m' if spoil is huge else '.mp4'}"
    spoil(path)
    end = outcome([path])[path.name]
    assert isinstance(end, Failed)
    assert end.error.reason in reasons
    assert str(path) in str(end.error)
    with pytest.raises(VideoError) as caught:
        open_source(path)
    assert caught.value.reason == end.error.reason


def test_what_every_decoder_says_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    text(path)
    end = outcome([path])[path.name]
    assert isinstance(end, Failed)
    with pytest.raises(VideoError) as caught:
        open_source(path, ("pyav", "decord"))
    for error in (end.error, caught.value):
        assert error.detail == VIDEO_REASONS["not-a-video"]


def test_what_decoders_say_differently_is_told_of_each() -> None:
    failed = [
        ("pyav", VideoError("damaged", "broken")),
        ("decord", VideoError("unsupported", "broken")),
        ("torchcodec", VideoError("crashed", "fell")),
    ]
    error = combine_failures(failed, "v.mp4")
    assert error.detail == "pyav, decord: broken; torchcodec: fell"
    assert error.reason == "damaged"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    path.chmod(0)
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert caught.value.reason == "unreadable"


def test_what_a_truncated_file_still_holds_is_kept_and_said(tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "whole.mp4", n_frames=300, container_options={"movflags": "faststart"}
    )
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    end = outcome([cut])["cut.mp4"]
    assert isinstance(end, Finished)
    assert 100 < end.n_frames < 250
    assert any(warning.startswith("truncated: ") for warning in end.warnings)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_packets_that_cannot_be_decoded_are_skipped_and_counted(tmp_path: Path, codec: str) -> None:
    path = make_video(tmp_path / "v.mp4", n_frames=120, gop=10, codec=codec)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for start, size in packets[50:60]:
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    end = outcome([path])["v.mp4"]
    assert isinstance(end, Finished)
    assert 100 <= end.n_frames <= 120
    assert any(warning.startswith("damaged: ") for warning in end.warnings)


def test_a_good_file_says_nothing(tmp_path: Path) -> None:
    end = outcome([make_video(tmp_path / "v.mp4", audio=True)])["v.mp4"]
    assert isinstance(end, Finished)
    assert end.warnings == ()


def test_mutated_files_end_as_frames_or_as_a_reason(tmp_path: Path) -> None:
    random_bytes = random.Random(7)
    originals = [
        make_video(tmp_path / "a.mp4", n_frames=40).read_bytes(),
        make_video(tmp_path / "b.mkv", n_frames=40).read_bytes(),
        make_video(tmp_path / "c.avi", n_frames=40, codec="mpeg4").read_bytes(),
    ]
    spoilt = []
    for number in range(45):
        data = bytearray(random_bytes.choice(originals))
        kind = number % 3
        if kind == 0:
            for _ in range(random_bytes.choice([1, 20, 400])):
                data[random_bytes.randrange(len(data))] = random_bytes.randrange(256)
        elif kind == 1:
            del data[random_bytes.randrange(len(data)) :]
        else:
            # Absurd values where headers have their sizes and counts.
            for _ in range(3):
                place = random_bytes.randrange(max(1, len(data) - 4))
                struct.pack_into(">I", data, place, random_bytes.choice([0, 1, 2**31, 2**32 - 1]))
        path = tmp_path / f"m{number}.mp4"
        path.write_bytes(data)
        spoilt.append(path)
    ends = outcome(spoilt)
    assert set(ends) == {path.name for path in spoilt}
    for end in ends.values():
        if isinstance(end, Failed):
            assert end.error.reason in VIDEO_REASONS
            assert end.error.reason != "timeout"
        else:
            assert end.n_ticks > 0


@pytest.mark.parametrize(
    "name",
    [b"-v.mp4", b"a\nb.mp4", b"\xff\xfe.mp4", b"concat:x|y.mp4", b"%d.mp4", b"\xe2\x82\xac .mp4"],
    ids=["dash", "newline", "not utf-8", "protocol", "pattern", "euro"],
)
def test_strange_names_are_only_names(tmp_path: Path, name: bytes) -> None:
    plain = make_video(tmp_path / "plain.mp4", n_frames=9)
    path = tmp_path / os.fsdecode(name)
    plain.rename(path)
    end = outcome([path])[path.name]
    assert isinstance(end, Finished)
    assert end.n_frames == 9
    assert probe(path).width == 64
    path.unlink()
    failed = outcome([path])[path.name]
    assert isinstance(failed, Failed)
    str(failed.error).encode()
