"""Summaries of stores and of videos: `tsp inspect`."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused as expect_refusal
from tests.builders.stores import DIM, VIDEOS, features, store
from tspcli.analysis.inspect import summarize, view_video
from tspcli.cli.main import cli
from tspcli.errors import StoreError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.store.store_set import find_video


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return store(tmp_path / "base.h5", VIDEOS)


class TestInspect:
    def test_summary(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", VIDEOS, warnings={"v_1": ["padded"]}, precision="bf16")
        with open_store(path) as opened:
            summary = summarize(opened)
        assert summary.n_rows == sum(map(len, VIDEOS.values())) and summary.dims == [DIM]
        assert summary.encoder == "r3d_18" and summary.weights == "w"
        assert summary.settings["precision"] == "bf16"
        assert summary.settings["sampling.stride"] == 16
        by_key = {video.key: video for video in summary.videos}
        assert by_key["v_1"].warnings == ["padded"]
        assert by_key["v_0"].covered_s == pytest.approx(60 * 16 / 15)
        assert summary.seconds == pytest.approx(sum(v.duration_s for v in summary.videos))

    def test_check_finds_what_changed(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", VIDEOS, checksums=True)
        with h5py.File(path, "a") as file:
            file["v_1"][0, 0] = np.nan
        with open_store(path) as opened:
            found = {v.key: (v.intact, v.not_finite) for v in summarize(opened, check=True).videos}
        assert found == {"v_0": (True, 0), "v_1": (False, 1), "v_2": (True, 0), "v_3": (True, 0)}
        result = CliRunner().invoke(cli, ["inspect", str(path), "--check"], standalone_mode=False)
        assert result.return_value == 1 and "damaged" in result.output
        assert "1 video with rows that are not finite, 1 damaged video" in result.output

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_rows_with_bad_values(self, tmp_path: Path, bad: float) -> None:
        rows = features(9, 1)
        rows[4, 2] = bad
        path = store(tmp_path / "s.h5", {"v_0": features(9, 0), "v_1": rows}, checksums=True)
        run = CliRunner().invoke
        result = run(cli, ["inspect", str(path), "--check"], standalone_mode=False)
        assert result.return_value == 1
        assert "1 video with rows that are not finite, 0 damaged videos" in result.output
        assert "rows unread" in run(cli, ["inspect", str(path)]).output
        text = run(cli, ["inspect", str(path), "v_1"]).output
        assert "1 row of 9 is not finite (the first: 4)" in text
        json_text = run(cli, ["inspect", str(path), "v_1", "--json"]).stdout
        assert "NaN" not in json_text and "Infinity" not in json_text
        assert json.loads(json_text)["rows"][4]["norm"] is None

    def test_video(self, tmp_path: Path) -> None:
        rows = features(20, 0)
        rows[15] = rows[3] * 2
        path = store(tmp_path / "s.h5", {"v_0": rows})
        with open_store(path) as opened:
            views = view_video(find_video(opened, "0"), n_neighbours=2)
        assert views[15].neighbours[0][0] == 3 and views[3].neighbours[0][0] == 15
        assert views[3].neighbours[0][1] == pytest.approx(1)
        assert views[15].norm == pytest.approx(2 * views[3].norm)
        assert views[2].center_s == pytest.approx((2 * 16 + 8) / 15)
        assert views[2].start_s == pytest.approx(32 / 15) and views[2].end_s == pytest.approx(3.2)

    def test_rows_that_are_not_those_written(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", VIDEOS, checksums=True)
        with h5py.File(path, "r+") as file:
            file["v_1"][3, 0] += 1
        run = CliRunner().invoke
        refused = run(cli, ["inspect", str(path), "v_1"], standalone_mode=False).exception
        assert isinstance(refused, StoreError) and "checksum differs" in refused.message
        assert run(cli, ["inspect", str(path), "v_2"], standalone_mode=False).exception is None

    def test_check_of_a_video(self, tmp_path: Path) -> None:
        rows = features(9, 0)
        rows[4, 0] = np.inf
        path = store(tmp_path / "s.h5", {"v_0": rows, "v_1": features(9, 1)}, checksums=True)
        run = CliRunner().invoke
        for key, code in (("v_0", 1), ("v_1", 0)):
            result = run(cli, ["inspect", str(path), key, "--check"], standalone_mode=False)
            assert result.return_value == code

    def test_check_goes_on_past_rows_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "gzip.h5"
        with h5py.File(path, "w") as file:
            for key, rows in VIDEOS.items():
                file.create_dataset(key, data=rows, compression="gzip")
            offset, size = (lambda c: (c.byte_offset, c.size))(file["v_1"].id.get_chunk_info(0))
        data = bytearray(path.read_bytes())
        data[offset : offset + size] = bytes(size)
        path.write_bytes(data)
        with open_store(path) as opened:
            summary = summarize(opened, check=True)
        assert {v.key: v.intact for v in summary.videos} == {
            "v_0": None,
            "v_1": False,
            "v_2": None,
            "v_3": None,
        }
        result = CliRunner().invoke(cli, ["inspect", str(path), "--check"], standalone_mode=False)
        assert result.return_value == 1 and "1 damaged video" in result.output

    def test_neighbours_are_a_videos(self, base: Path) -> None:
        run = CliRunner().invoke
        refused = run(cli, ["inspect", str(base), "--neighbours", "2"], standalone_mode=False)
        assert isinstance(refused.exception, UsageError)

    def test_overlapping_clips_are_no_neighbours(self, tmp_path: Path) -> None:
        dense = Sampling(stride=1, frame_rate=Fraction(15))
        path = store(tmp_path / "s.h5", {"v_0": features(80, 0, sampling=dense)}, sampling=dense)
        with open_store(path) as opened:
            for view in view_video(opened["v_0"]):
                assert len(view.neighbours) == 3
                assert all(abs(other - view.row) >= 16 for other, _ in view.neighbours)

    def test_one_row(self, tmp_path: Path) -> None:
        path = store(tmp_path / "s.h5", {"v_0": features(1, 0)})
        with open_store(path) as opened:
            (view,) = view_video(opened["v_0"])
        assert view.neighbours == []

    def test_unknown_video(self, base: Path) -> None:
        with open_store(base) as opened, expect_refusal(UsageError, value="v_7") as error:
            find_video(opened, "v_7")
        assert "v_" in str(error.value.remedy)

    def test_released_files(self, tmp_path: Path) -> None:
        path = store(tmp_path / "r.h5", VIDEOS, sampling=None)
        run = CliRunner().invoke
        result = run(cli, ["inspect", str(path)])
        assert result.exit_code == 0 and "unknown" in result.output
        data = json.loads(run(cli, ["inspect", str(path), "v_0", "--json"]).stdout)
        assert data["rows"][0]["center_s"] is None
        told = ["--frame-rate", "15", "--stride", "16", "--clip-length", "16", "--json"]
        data = json.loads(run(cli, ["inspect", str(path), "v_0", *told]).stdout)
        assert data["rows"][1]["center_s"] == pytest.approx(1.6)

    def test_command(self, base: Path) -> None:
        report = {
            "videos": [
                {"key": "v_bad", "status": "failed", "reason": "no-frames", "detail": "[red]x"}
            ]
        }
        base.with_name("base.h5.report.json").write_text(json.dumps(report))
        run = CliRunner().invoke
        text = run(cli, ["inspect", str(base)]).output
        for part in ("v_0", "r3d_18", "sampling.stride", "v_bad", "no-frames", "[red]x"):
            assert part in text
        data = json.loads(run(cli, ["inspect", str(base), "--json"]).stdout)
        assert data["n_videos"] == 4 and data["failures"][0]["key"] == "v_bad"
        text = run(cli, ["inspect", str(base), "v_0", "--limit", "5"]).output
        assert "1.600" in text and "and 55 more" in text


LONG = "v_" + "name" * 12


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("words", [["--check"], [LONG, "--limit", "3"]])
def test_nothing_is_cut_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, words: list[str]
) -> None:
    warning = "frames could not be decoded " * 3
    videos = {LONG: features(60, 0), "v_1": features(5, 1)}
    path = store(
        tmp_path / "s.h5", videos, checksums=True, warnings={LONG: [warning]},
        preprocessing={"height": 128, "a long name": {"of a setting": "x" * 50}},
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(cli, ["inspect", path.name, *words])
    lines = result.output.splitlines()
    assert max(map(len, lines[:-1])) <= columns and not any("…" in line for line in lines[:-1])
    whole = "".join(result.output.split())
    # Side by side in columns, folded texts are not in one piece.
    pieces = [LONG, "".join(warning.split())] if columns == 40 else ["name", "decoded"]
    for part in pieces if len(words) == 1 else ["3.200", LONG]:
        assert part in whole
    assert len(words) > 1 or whole.count("x") == 50


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/runs/tsp/best.pth", "tsp/best.pth (sha256 abababab)"),
        ("tac/best.pth", "tac/best.pth (sha256 abababab)"),
        ("best.pth", "best.pth (sha256 abababab)"),
        (None, "best.pth"),
    ],
)
def test_weights_of_two_runs_are_told_apart(tmp_path: Path, path: str | None, name: str) -> None:
    more = {} if path is None else {"weights_path": path}
    made = store(
        tmp_path / "s.h5", {"v": features(5, 0)}, weights="best.pth", weights_sha256="ab" * 32,
        **more,
    )  # fmt: skip
    assert name in CliRunner().invoke(cli, ["inspect", str(made)]).stdout
    with open_store(made) as opened:
        assert opened.metadata.weights_in_words == name
