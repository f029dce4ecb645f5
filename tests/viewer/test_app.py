"""What the page's addresses answer, to whom, and how much."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.builders.videos import read_number
from tests.viewer.conftest import DENSE, Page, Serve
from tspcli.analysis.similarity import unit_rows
from tspcli.viewer import app
from tspcli.viewer.workspace import Heads

CSV = "video,start,end,label,note\nv_a,1,2,jump,keep\nv_c,0.5,0.9,run,\n"
RESULTS = {
    "version": "VERSION 1.3",
    "results": {
        "a": [
            {"segment": [1.0, 2.1], "label": "jump", "score": 0.9},
            {"segment": [4.0, 5.0], "label": "jump", "score": 0.8},
            {"segment": [1.0, 2.0], "label": "run", "score": 0.05},
        ]
    },
    "external_data": {},
}


def full_page(serve: Serve, scenes: Path, folder: Path, heads: Heads) -> Page:
    (folder / "actions.csv").write_text(CSV)
    (folder / "found.json").write_text(json.dumps(RESULTS))
    return serve(
        scenes / "feats.h5",
        videos=scenes / "videos",
        annotations_path=folder / "actions.csv",
        predictions_path=folder / "found.json",
        load_heads=lambda: heads,
    )


@pytest.fixture(scope="module")
def page(
    serve_once: Serve,
    scene_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    two_heads: Heads,
) -> Page:
    """For tests that change nothing."""
    return full_page(serve_once, scene_folder, tmp_path_factory.mktemp("page"), two_heads)


@pytest.fixture
def edited(serve: Serve, scene_folder: Path, tmp_path: Path, two_heads: Heads) -> Page:
    """For tests that edit ``actions.csv``."""
    return full_page(serve, scene_folder, tmp_path, two_heads)


def ready(page: Page) -> Page:
    """The page once the heads are there and the list is complete."""
    until = time.monotonic() + 20
    while page.workspace.heads is None or not page.ask("/api/videos").json["complete"]:
        assert time.monotonic() < until
    return page


def test_the_list_shows_lengths_counts_and_errors(page: Page):
    first, second, third = ready(page).ask("/api/videos").json["videos"]
    assert first["name"] == "v_a"
    assert first["rows"] == 53
    assert first["annotated"] == 1
    assert first["predicted"] == 3
    # At the score of the best F1, one action is found and nothing else predicted.
    assert (first["missed"], first["false"]) == (0, 0)
    assert first["worst"] == pytest.approx(1 / 1.1)
    assert second["missed"] is None
    assert (third["missed"], third["false"], third["worst"]) == (1, 0, 0.0)


def test_a_video_has_its_segments_predictions_series_and_file(page: Page):
    about = ready(page).ask("/api/videos/0").json
    assert about["segments"] == [[1.0, 2.0, "jump", 0]]
    assert [p[3] for p in about["predictions"]] == ["jump", "jump", "run"]
    series = about["series"][0]
    assert series["rows"] == 53
    assert series["step_s"] == pytest.approx(float(DENSE.stride_s))
    assert sorted(series["classes"]) == ["<b>run</b>", "jump"]
    assert about["file"]["fps"] == 30
    assert page.ask("/api/videos/2").json["file"] is None


def test_a_tile_holds_the_rows_change_and_probabilities(page: Page):
    tile = ready(page).ask("/api/videos/0/tile", level=0, tile=0).json
    rows = page.workspace.stores[0]["v_a"].rows
    units = unit_rows(rows)
    apart = 8  # clips of 16 samples, 2 apart
    assert tile["change"][apart // 2 : -apart // 2] == pytest.approx(
        1 - (units[:-apart] * units[apart:]).sum(axis=1), abs=1e-3
    )
    assert tile["change"][: apart // 2] == [None] * (apart // 2)
    assert tile["change"][-apart // 2 :] == [None] * (apart // 2)
    assert sum(np.array(tile["classes"])) == pytest.approx(np.ones(53), abs=2e-3)
    assert len(tile["colors"]) == 53 * 6
    assert len(tile["region"]) == 53


def test_the_matrix_is_that_of_the_rows_in_sight(page: Page):
    answer = page.ask("/api/videos/0/matrix", start=0, end=100)
    cells, low = int(answer.headers["x-cells"]), float(answer.headers["x-low"])
    rows = unit_rows(page.workspace.stores[0]["v_a"].rows)
    assert cells == 53
    shades = np.frombuffer(answer.body, np.uint8).reshape(cells, cells)
    cosines = low + shades / 255 * (1 - low)
    assert np.abs(cosines - np.maximum(rows @ rows.T, low)).max() < 0.01


@pytest.mark.parametrize("number", [0, 1, 37, 89])
@pytest.mark.parametrize("video", [0, 1])
def test_a_frame_is_the_one_that_is_shown_at_that_time(page: Page, video: int, number: int):
    time_s = (number + 0.5) / 30
    answer = page.ask(f"/api/videos/{video}/frame", time=time_s, height=480)
    assert answer.status == 200
    shown = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert read_number(shown[..., ::-1]) == number
    assert float(answer.headers["x-start"]) == pytest.approx(number / 30, abs=1e-4)


def test_a_file_is_served_by_ranges(page: Page, scene_folder: Path):
    data = (scene_folder / "videos" / "v_a.mp4").read_bytes()
    complete = page.ask("/api/videos/0/file")
    assert complete.body == data
    part = page.ask("/api/videos/0/file", headers={"range": "bytes=100-199"})
    assert (part.status, part.body) == (206, data[100:200])
    beyond = page.ask("/api/videos/0/file", headers={"range": f"bytes={len(data)}-"})
    assert beyond.status == 416


def test_searching_finds_the_rows_that_are_like_the_example(page: Page):
    answer = page.ask("/api/videos/0/search", start=1.0, end=2.0, top=5).json
    assert len(answer["moments"]) == 5
    scores = [m["score"] for m in answer["moments"]]
    assert scores == sorted(scores, reverse=True)
    for moment in answer["moments"]:
        if moment["id"] == 0:
            assert moment["end_s"] <= 1.0 + 0.14 or moment["start_s"] >= 2.0 - 0.14


def edits(page: Page, **changes: list[list[object]]) -> bytes:
    version = page.ask("/api/session").json["version"]
    return json.dumps({"version": version, "changes": changes}).encode()


def test_edits_are_saved_and_the_rest_of_the_file_stays(edited: Page, tmp_path: Path):
    body = edits(edited, **{"0": [[1.0, 2.5, "jump", 0], [3.0, 4.0, "spin", None]]})
    answer = edited.ask("/api/annotations", method="POST", body=body)
    assert answer.status == 200
    lines = (tmp_path / "actions.csv").read_text().splitlines()
    assert lines == [
        "video,start,end,label,note",
        "v_a,1,2.5,jump,keep",
        "v_a,3,4,spin,",
        "v_c,0.5,0.9,run,",
    ]
    assert (tmp_path / "actions.csv.bak").read_text() == CSV
    assert edited.ask("/api/videos/0").json["version"] == answer.json["version"]


def test_a_file_that_changed_meanwhile_is_not_overwritten(edited: Page, tmp_path: Path):
    body = edits(edited, **{"0": [[1.0, 2.5, "jump", 0]]})
    theirs = CSV.replace("1,2,jump", "1.25,2,jump")
    (tmp_path / "actions.csv").write_text(theirs)
    answer = edited.ask("/api/annotations", method="POST", body=body)
    assert answer.status == 409
    assert answer.json["segments"] == {"0": [[1.25, 2.0, "jump", 0]]}
    assert (tmp_path / "actions.csv").read_text() == theirs
    # With the version that the answer states, the page may decide to keep its own.
    again = json.dumps({"version": answer.json["version"], "changes": {"0": [[1, 2.5, "jump", 0]]}})
    assert edited.ask("/api/annotations", method="POST", body=again.encode()).status == 200


@pytest.mark.parametrize(
    "segments",
    [
        [[2.0, 1.0, "jump", None]],
        [[-1.0, 1.0, "jump", None]],
        [[0.0, 1.0, "  ", None]],
        [[0.0, 1.0, "two\nlines", None]],
        [["0", 1.0, "jump", None]],
        [[0.0, 1.0]],
    ],
)
def test_edits_that_are_no_segments_are_refused(edited: Page, tmp_path: Path, segments: list):
    answer = edited.ask("/api/annotations", method="POST", body=edits(edited, **{"0": segments}))
    assert answer.status in (400, 422)
    assert (tmp_path / "actions.csv").read_text() == CSV


# --- who may ask ----------------------------------------------------------------------------------

ADDRESSES = ["/", "/api/session", "/api/videos", "/api/videos/0", "/api/videos/0/file"]


@pytest.mark.parametrize("path", ADDRESSES)
def test_nothing_is_answered_without_the_token(page: Page, path: str):
    assert page.ask(path, with_token=False).status == 403
    assert (
        page.ask(
            path, with_token=False, headers={"x-tsp-token": "é".encode().decode("latin1")}
        ).status
        == 403
    )
    assert page.ask(path, with_token=False, token=page.token[:-1]).status == 403
    assert page.ask(path, with_token=False, token=page.token).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
@pytest.mark.parametrize("path", [*ADDRESSES, "/static/main.js"])
def test_a_name_that_was_made_to_point_here_is_refused(page: Page, path: str, host: str):
    assert page.ask(path, headers={"Host": host}).status == 403


def test_what_changes_something_wants_the_token_in_a_header(edited: Page, tmp_path: Path):
    body = edits(edited, **{"0": []})
    answer = edited.ask("/api/annotations", method="POST", body=body, with_token=False,
                      token=edited.token)  # fmt: skip
    assert answer.status == 403
    assert edited.ask("/api/annotations", with_token=True).status == 405
    assert (tmp_path / "actions.csv").read_text() == CSV


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/api/videos/../../etc/passwd",
        "/api/videos/-1",
        "/api/videos/3",
        "/api/videos/99999999999999999999",
        "/api/videos/0.5",
        "/api/videos/2/file",
    ],
)
def test_no_other_file_can_be_read(page: Page, path: str):
    assert page.ask(path).status == 404


def test_every_answer_forbids_foreign_scripts(page: Page):
    for path in ("/", "/api/session", "/static/main.js", "/api/videos/9"):
        headers = page.ask(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_page_holds_no_script_and_no_style_of_its_own(page: Page):
    text = page.ask("/").body.decode()
    assert "<style" not in text
    assert " style=" not in text
    assert "<script>" not in text
    assert "http" not in text.replace("https", "http").split("<main>")[0].replace("http-equiv", "")


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("tile", {"level": 1, "tile": 0}),
        ("tile", {"level": 0, "tile": 1}),
        ("tile", {"level": -1, "tile": 0}),
        ("tile", {"level": "nan", "tile": 0}),
        ("tile", {"level": 0, "tile": 0, "store": 1}),
        ("matrix", {"start": "inf", "end": 1}),
        ("matrix", {"start": 1}),
        ("frame", {"time": "nan", "height": 100}),
        ("frame", {"time": 1, "height": 100_000}),
        ("frame", {"time": 1, "height": 0}),
        ("search", {"start": 1, "end": 2, "top": 10**9}),
        ("search", {"start": 2, "end": 1, "top": 3}),
        ("search", {"start": 500, "end": 510, "top": 3}),
    ],
)
def test_what_is_out_of_bounds_is_refused(page: Page, path: str, parameters: dict[str, object]):
    answer = page.ask(f"/api/videos/0/{path}", **parameters)
    assert answer.status in (400, 404, 422)
    assert answer.json["error"]


def test_a_body_that_would_fill_the_memory_is_refused(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "MOST_BODY_BYTES", 1000)
    assert page.ask("/api/annotations", method="POST", body=b"x" * 1001).status == 413
    chunks = page.ask(
        "/api/annotations",
        method="POST",
        body=iter([b"x" * 600] * 3),
    )
    assert chunks.status == 413


def test_annotations_that_cannot_be_edited_are_shown(
    serve: Serve, scene_folder: Path, tmp_path: Path
):
    path = tmp_path / "captions.json"
    path.write_text('{"v_a": {"duration": 8, "timestamps": [[1, 2]], "sentences": ["jumps"]}}')
    page = serve(scene_folder / "feats.h5", annotations_path=path)
    assert page.ask("/api/videos/0").json["segments"] == [[1.0, 2.0, "jumps", None]]
    session = page.ask("/api/session").json
    assert session["version"] is None
    assert "convert" in session["read_only"]
    body = json.dumps({"version": "", "changes": {"0": []}}).encode()
    assert page.ask("/api/annotations", method="POST", body=body).status == 422


def test_annotations_begin_with_the_first_save(serve: Serve, scene_folder: Path, tmp_path: Path):
    page = serve(scene_folder / "feats.h5", annotations_path=tmp_path / "new.json")
    body = edits(page, **{"2": [[0.1, 0.5, "run", None]]})
    assert page.ask("/api/annotations", method="POST", body=body).status == 200
    found = json.loads((tmp_path / "new.json").read_text())
    assert found["database"] == {"v_c": {"annotations": [{"segment": [0.1, 0.5], "label": "run"}]}}
