"""What a run tells of files without features: reasons, remedies, names, and skipped files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.videos import make_video
from tspcli.analysis.inspect import read_failures
from tspcli.cli.extract import command
from tspcli.cli.inspect import command as inspect_command
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import VIDEO_REASONS, VIDEO_REMEDIES, UsageError
from tspcli.extraction import extract
from tspcli.extraction.batch_encoder import require_memory
from tspcli.extraction.extract_config import EncoderInfo
from tspcli.extraction.run_report import bottleneck
from tspcli.sampling import Sampling
from tspcli.store.merge import merge_stores


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("tiny", device="cpu", precision="fp32")


def test_every_reason_has_a_remedy() -> None:
    assert VIDEO_REMEDIES.keys() == VIDEO_REASONS.keys()


@pytest.mark.parametrize(
    ("decode_wait_s", "encode_s", "limit"),
    [
        (0.0, 0.0, "decoding"),  # nothing has come yet
        (2.0, 98.0, "encoding"),
        (45.0, 55.0, "decoding"),  # twice as fast an encoder would wait for 72.5 s
        (90.0, 10.0, "decoding"),
    ],
)
def test_the_limit_is_what_would_help(decode_wait_s: float, encode_s: float, limit: str) -> None:
    assert bottleneck(decode_wait_s, encode_s) == limit


def test_each_remedy_is_told_once_and_what_was_passed_over(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "good.mp4", n_frames=40)
    make_video(videos / "short.mp4", n_frames=9)
    for name in ("a.mp4", "b.mp4"):
        (videos / name).write_bytes(b"no video" * 100)
    for name in ("c.mp4.part", "d.mp4.part", ".e.mp4"):
        (videos / name).touch()
    arguments = ["--videos", str(videos), "--out", str(tmp_path / "f.h5"), "--weights", "tiny"]
    arguments += ["--short-videos", "fail", "--device", "cpu", "--workers", "1"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    said = " ".join(done.stderr.split())
    assert said.count(VIDEO_REMEDIES["not-a-video"]) == 1
    assert f"not-a-video (2 videos): {VIDEO_REMEDIES['not-a-video']}" in said
    assert f"too-short (1 video): {VIDEO_REMEDIES['too-short']}" in said
    assert "--short-videos pad" in said
    assert said.count("3 files skipped: 2 .part, 1 hidden") == 1
    report = json.loads((tmp_path / "f.h5.report.json").read_text())
    remedies = {video["key"]: video["remedy"] for video in report["videos"]}
    assert remedies["a"] == remedies["b"] == VIDEO_REMEDIES["not-a-video"]
    assert remedies["short"] == VIDEO_REMEDIES["too-short"] and remedies["good"] is None
    assert report["skipped_files"] == {".part": 2, "hidden": 1}


def test_strict_says_what_it_would_have_kept(encoder: Encoder, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mkv", n_frames=120)
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    report = extract(tmp_path / "cut.mkv", tmp_path / "f.h5", encoder=encoder, strict=True)
    ((reason, remedy, count),) = report.remedies
    assert (reason, count) == ("damaged", 1) and "--strict" in remedy


def test_a_name_that_is_no_utf8_stays_readable(encoder: Encoder, tmp_path: Path) -> None:
    """The reports of such videos are our own, and plain JSON for others."""
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "plain.mp4", n_frames=40).rename(folder / os.fsdecode(b"\xff\xfe.mp4"))
    (folder / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video" * 100)
    out = tmp_path / "f.h5"
    extract(folder, out, encoder=encoder)
    text = (tmp_path / "f.h5.report.json").read_text(encoding="ascii")
    json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8")
    (failure,) = read_failures(out)
    assert failure["reason"] == "not-a-video"
    assert merge_stores([out], tmp_path / "all.h5").n_failed == 1
    for store in (out, tmp_path / "all.h5"):
        shown = CliRunner().invoke(inspect_command, [str(store)], standalone_mode=False)
        assert shown.exception is None, shown.exception
        assert "not-a-video" in shown.stdout


def test_clips_that_no_memory_holds_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", n_frames=40)
    with pytest.raises(UsageError, match=r"1000000000 frames .* GB of memory") as caught:
        extract(tmp_path / "v.mp4", tmp_path / "f.h5", encoder=encoder, clip_length=10**9)
    assert "--clip-length" in str(caught.value.remedy)
    assert not (tmp_path / "f.h5").exists()


def test_the_bound_is_that_of_one_batch(encoder: Encoder) -> None:
    facts = EncoderInfo.of(encoder)
    height, width = facts.frame_spec.output_shape(256, 341)
    one_clip = 8 * 16 * height * width * 3 * 4
    require_memory(Sampling(), facts, 2, available=2 * one_clip)
    with pytest.raises(UsageError, match="batch of 3 clips"):
        require_memory(Sampling(), facts, 3, available=2 * one_clip)
    with pytest.raises(UsageError, match="batch of 4 clips"):
        require_memory(Sampling(), facts, None, available=2 * one_clip)


@pytest.mark.parametrize(
    ("profile", "shard"),
    [
        *((name, None) for name in ("f.h5", "f.h5.report.json", "v.mp4", "folder/../v.mp4")),
        ("f.h5", "1/2"),
        ("f.shard-1-of-2.h5", "1/2"),
        ("f.shard-1-of-2.h5.report.json", "1/2"),
    ],
)
def test_a_profile_is_a_file_of_its_own(tmp_path: Path, profile: str, shard: str | None) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"a video")
    arguments = ["--videos", str(tmp_path / "v.mp4"), "--out", str(tmp_path / "f.h5")]
    arguments += ["--weights", "tiny", "--profile", str(tmp_path / profile)]
    arguments += ["--shard", shard] if shard else []
    refused = CliRunner().invoke(command, arguments, standalone_mode=False).exception
    assert isinstance(refused, UsageError) and "is the same file as" in refused.message
    assert (tmp_path / "v.mp4").read_bytes() == b"a video"
