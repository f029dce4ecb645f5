"""A file that was cut off says so, whatever else it holds; a whole one says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from tests.builders.videos import make_video
from tests.video.pools import usable_of
from tspcli.errors import VideoError
from tspcli.sampling import Sampling
from tspcli.video import open_source, sampled_frames
from tspcli.video.decoders import indexed_source as indexed
from tspcli.video.durations import header_duration_ms

KINDS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mkv": {},
    "flv": {},
    "wmv": {"codec": "wmv2", "audio_codec": "libmp3lame"},
    "avi": {"codec": "mpeg4", "audio_codec": "libmp3lame"},
}


@pytest.fixture(params=usable_of(["pyav", "decord", "torchcodec"]))
def decoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(path: Path, audio_s: float, **options: Any) -> Path:
    """Six seconds of video whose sound comes with it, packet by packet, as files have it."""
    kind = {**KINDS[path.suffix[1:]], **options}
    return make_video(path, fps=10, n_frames=60, audio=audio_s > 0, audio_s=audio_s, **kind)


def cut(whole: Path, share: float) -> Path:
    target = whole.with_name(f"cut{whole.suffix}")
    data = whole.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def warnings(path: Path, decoder: str) -> list[str]:
    try:
        with open_source(path, decoder) as source:
            for _ in source.frames():
                pass
            return source.warnings
    except VideoError as error:
        if decoder == "pyav":
            raise
        pytest.skip(f"{decoder} refuses this file: {error.detail}")


@pytest.mark.parametrize(
    ("kind", "audio_s"), [("mkv", 0), ("mkv", 6), ("mkv", 15), ("flv", 6), ("avi", 6)]
)
def test_a_cut_file_is_truncated(tmp_path: Path, kind: str, audio_s: int) -> None:
    path = cut(make(tmp_path / f"whole.{kind}", audio_s), 0.5)
    said = [text for text in warnings(path, "pyav") if text.startswith("truncated: ")]
    assert len(said) == 1
    assert f" {max(6, audio_s if kind == 'mkv' else 6)}." in said[0]


@pytest.mark.parametrize(
    ("kind", "audio_s"),
    [("mp4", 15), ("mkv", 2), ("mkv", 15), ("flv", 15), ("wmv", 15), ("avi", 15)],
)
def test_a_whole_file_says_nothing(tmp_path: Path, kind: str, audio_s: int) -> None:
    assert warnings(make(tmp_path / f"whole.{kind}", audio_s), "pyav") == []


def test_a_cut_file_may_have_odd_tags(tmp_path: Path, decoder: str) -> None:
    """The other streams are read from the file opened once more."""
    whole = make(tmp_path / "whole.mkv", 15)
    data = whole.read_bytes()
    assert b"Lavf" in data
    whole.write_bytes(data.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    assert any(text.startswith("truncated: ") for text in warnings(cut(whole, 0.4), decoder))


def test_a_packet_of_no_stream_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that first show up in the middle of a file are none that PyAV knows."""
    path = make(tmp_path / "whole.mkv", 0)

    def stray(stream: Any) -> Any:
        raise IndexError("list index out of range")

    @contextmanager
    def opened(name: str, **options: Any) -> Iterator[Any]:
        with av.open(name, **options) as container:
            yield SimpleNamespace(streams=container.streams, format=container.format, demux=stray)

    monkeypatch.setattr(indexed, "av", SimpleNamespace(open=opened, error=av.error))
    with pytest.raises(VideoError) as caught:
        indexed.scan_packets(str(path))
    assert caught.value.reason == "damaged"


def test_every_decoder_knows_it(tmp_path: Path, decoder: str) -> None:
    whole = make(tmp_path / "whole.mkv", 15)
    assert warnings(whole, decoder) == []
    assert any(text.startswith("truncated: ") for text in warnings(cut(whole, 0.4), decoder))


@pytest.mark.parametrize("start_s", [0, 3])
def test_a_late_start_is_no_missing_end(tmp_path: Path, start_s: int, decoder: str) -> None:
    """Matroska counts its duration from zero, not from the first frame."""
    path = make_video(tmp_path / "late.mkv", fps=10, n_frames=20, start=start_s * 10)
    assert warnings(path, decoder) == []


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_a_fragmented_file_may_begin_in_the_middle(tmp_path: Path, kept: int, decoder: str) -> None:
    """FFmpeg counts its duration from zero, not from the first fragment that is there."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    options = {"fps": 10, "n_frames": 60, "gop": 10, "b_frames": 0, "container_options": flags}
    whole = make_video(tmp_path / "whole.mp4", **options).read_bytes()
    starts = [m.start() - 4 for m in re.finditer(b"moof", whole)]
    assert len(starts) == 6
    path = tmp_path / "part.mp4"
    path.write_bytes(whole[: starts[0]] + whole[starts[-kept] :])
    assert warnings(path, decoder) == []
    assert header_duration_ms(str(path)) == 1000 * kept
    with open_source(path, decoder) as source:
        assert source.first_pts_s == 6 - kept


@pytest.mark.parametrize("start_s", [3, 100])
def test_the_duration_of_matroska_runs_from_the_first_frame(tmp_path: Path, start_s: int) -> None:
    path = make_video(tmp_path / "late.mkv", fps=10, n_frames=20, start=start_s * 10)
    assert header_duration_ms(str(path)) == 2000


@pytest.mark.parametrize("suffix", ["ts", "mpg", "avi", "mp4", "mkv"])
def test_a_clock_that_runs_on_is_nothing_to_report(tmp_path: Path, suffix: str) -> None:
    codec = {"mpg": "mpeg2video", "avi": "mpeg4"}.get(suffix, "libx264")
    path = make_video(tmp_path / f"v.{suffix}", fps=25, n_frames=50, codec=codec)
    with open_source(path, "pyav") as source:
        list(sampled_frames(source, Sampling()))
        assert source.warnings == []
