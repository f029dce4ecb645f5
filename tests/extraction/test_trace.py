"""The trace of a run tells what its threads and its decode processes did, on one clock."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.builders.videos import make_video
from tspcli.extraction import extract


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
    [note] = [note for note in report.notes if "No trace" in note]
    assert f"{video} is a file; name a folder." in note
