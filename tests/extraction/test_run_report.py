"""A run's report, its figures while videos are under way, and its trace."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.builders.videos import make_video
from tspcli.analysis.inspect import read_failures
from tspcli.cli.extract import command
from tspcli.cli.inspect import command as inspect_command
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import VIDEO_REASONS, VIDEO_REMEDIES, UsageError
from tspcli.extraction import ExtractConfig, Reporter, RunFigures, extract
from tspcli.extraction.run_report import bottleneck
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
    assert isinstance(refused, UsageError)
    assert (tmp_path / "v.mp4").read_bytes() == b"a video"


class Figures(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[RunFigures] = []

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        self.seen.append(replace(figures))


def test_a_video_counts_while_it_is_under_way(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "long.mp4", fps=30, n_frames=600)
    watcher = Figures()
    report = extract(
        videos,
        tmp_path / "f.h5",
        encoder=load_encoder("random", backbone="tiny", seed=1, device="cpu"),
        config=ExtractConfig(batch_size=3, workers=1),
        reporter=watcher,
    )
    under_way = [figures for figures in watcher.seen if figures.n_clips and not figures.n_ended]
    assert len(under_way) >= 4
    assert under_way[0].decode_wait_s == 0, "the start of the decode processes is nobody's limit"
    for figures in under_way[:-1]:
        # 16 samples at 15 a second a clip.
        assert figures.video_s == pytest.approx(figures.n_clips * 16 / 15)
        share = figures.video_s / 20
        assert figures.begun_bytes == pytest.approx(share * figures.total_bytes)
        # What a device that dies now leaves to the others.
        left = figures.of_the_lost(0.0)
        assert (left.begun_bytes, left.video_s, left.n_clips) == (0, 0, figures.n_clips)
        assert figures.left_s == pytest.approx(figures.elapsed_s * (1 / share - 1))
    last = watcher.seen[-1]
    assert (last.begun_bytes, last.ended_bytes, last.left_s) == (0, last.total_bytes, 0)
    assert report.video_s == pytest.approx(20)


def test_a_video_that_is_given_up_counts_for_nothing(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    whole = make_video(
        videos / "cut.mp4", fps=30, n_frames=600, container_options={"movflags": "faststart"}
    )
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    watcher = Figures()
    report = extract(
        videos,
        tmp_path / "f.h5",
        encoder=load_encoder("random", backbone="tiny", seed=1, device="cpu"),
        config=ExtractConfig(batch_size=1, workers=1, strict=True),
        reporter=watcher,
    )
    assert [video.status for video in report.videos] == ["failed"]
    assert max(figures.video_s for figures in watcher.seen) > 1
    assert report.video_s == pytest.approx(0)
    assert watcher.seen[-1].begun_bytes == 0


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trace")
    make_video(folder / "v.mp4", fps=30, n_frames=150)
    report = extract(
        folder / "v.mp4", folder / "f.h5", weights="tiny", device="cpu", workers=1, batch_size=2,
        profile=folder / "trace.json",
    )  # fmt: skip
    assert report.n_clips == 4
    return json.loads((folder / "trace.json").read_text())["traceEvents"]


def spans(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X" and event["name"] == name]


def test_every_clip_and_frame_is_in_it(events: list[dict[str, Any]]) -> None:
    assert [span["args"]["clips"] for span in spans(events, "encode")] == [2, 2]
    decoded = spans(events, "decode and scale")
    assert sum(span["args"]["frames"] for span in decoded) == 75
    assert {span["args"]["video"] for span in decoded} == {"v"}
    assert spans(events, "prepare")
    assert spans(events, "wait for frames")


def test_work_of_one_row_does_not_overlap(events: list[dict[str, Any]]) -> None:
    rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            rows.setdefault((event["pid"], event["tid"]), []).append(event)
    assert len(rows) == 3
    for row in rows.values():
        row.sort(key=lambda span: span["ts"])
        for one, other in pairwise(row):
            assert one["ts"] + one["dur"] <= other["ts"] + 1
    frames_came = spans(events, "decode and scale")[0]
    assert frames_came["ts"] + frames_came["dur"] <= spans(events, "encode")[0]["ts"]


def test_rows_have_names(events: list[dict[str, Any]]) -> None:
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert "tspcli-feeder" in named.values()
    assert any(name.startswith("decode ") for name in named.values())


def test_one_that_cannot_be_written_costs_no_features(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", fps=30, n_frames=60)
    report = extract(
        video, tmp_path / "f.h5", weights="tiny", device="cpu", workers=1,
        profile=video / "trace.json",
    )  # fmt: skip
    assert len(report.with_status("done")) == 1
    [note] = report.notes
    assert str(video) in note
