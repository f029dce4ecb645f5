"""The benchmark of a GPU runs whole on a CPU; what it checks there holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu, roofs


def test_the_dry_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roofs.MATMUL_SIZE, "cpu", 256)
    monkeypatch.setitem(roofs.COPIED_BYTES, "cpu", 1 << 20)
    place, table = tmp_path / "gpu.json", tmp_path / "gpu.md"
    gpu.main(["--dry", "--json", str(place), "--markdown", str(table)])
    record = json.loads(place.read_text())
    assert record["dry"] and record["machine"]
    figures = record["figures"]
    assert all(figure["what"] in table.read_text() for figure in figures)
    measured = [figure for figure in figures if figure["value"] is not None]
    parts = {figure["part"] for figure in measured}
    assert parts == {
        *("env", "rows", "encoder", "forms", "halving", "shared", "extract", "losses", "hours")
    }
    # What is right or wrong on any machine; speeds are not looked at.
    checks = [f for f in measured if f["part"] in ("rows", "halving", "shared", "losses")]
    assert len(checks) > 4 and all(figure["met"] is not False for figure in checks)
    rate, hours = [figure for figure in measured if figure["part"] == "extract"][:2]
    assert (rate["unit"], hours["unit"]) == ("clips/s", "h") and rate["value"] and hours["value"]
    # What a CPU lacks is a line with its reason.
    missing = [figure for figure in figures if figure["value"] is None]
    assert {figure["part"] for figure in missing} == {"env", "rows", "encoder", "frames"}
    assert all(figure["note"] for figure in missing)


def test_a_part_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    place = tmp_path / "env.jsonl"
    assert gpu.isolated("env", place, 120, ["--dry"]) == ""
    [*figures] = map(json.loads, place.read_text().splitlines())
    assert {figure["part"] for figure in figures} == {"env"}
    assert gpu.isolated("env", place, 0.01, ["--dry"]) == "ended after 0 s"


def test_a_part_without_time_left_is_a_line() -> None:
    [figure] = gpu.run(["env"], budget_s=1, dry=True, flags=[])
    assert figure.value is None and figure.note


def test_a_part_that_fails_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bench: gpu.Bench) -> list[gpu.Figure]:
        raise RuntimeError("no kernel image is available")

    def works(bench: gpu.Bench) -> list[gpu.Figure]:
        return [gpu.Figure("rows", "a row", 1.0)]

    monkeypatch.setattr(gpu, "PARTS", {"env": (fails, 60), "rows": (works, 60)})
    lost, kept = gpu.run(["env", "rows"], budget_s=100, dry=True, flags=[])
    assert "no kernel image" in lost.note and kept.value == 1.0
    with pytest.raises(SystemExit, match="early"):
        gpu.main(["--dry", "--only", "env"])


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--only", "env,rest"])
    assert refused.value.code == 2
