"""The table of targets: light to import, complete, and open to targets from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.exports.conftest import ANET
from tspcli.cli.main import cli
from tspcli.errors import UsageError
from tspcli.exports import TARGETS, Target
from tspcli.exports.export import load_target
from tspcli.exports.export_options import ExportOptions, Resize
from tspcli.exports.export_plan import Clock, ExportPlan, PlannedVideo
from tspcli.exports.target import Array, Usage, Writer
from tspcli.exports.targets import TargetEntry
from tspcli.sampling.resampling import METHODS


def test_the_table_imports_none_of_the_targets() -> None:
    code = "import sys, tspcli.exports.targets; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(found.stdout.split())
    assert not modules & {"numpy", "h5py", "tspcli.exports.target", "tspcli.exports.targets.npy"}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_entry_is_a_target(name: str) -> None:
    target = load_target(name)
    assert isinstance(target, Target) and target.name == TARGETS[name].name == name
    known = set(ExportOptions().to_dict())
    assert target.accepts <= known and set(target.defaults) <= known


def test_options_name_what_resampling_has() -> None:
    assert get_args(Resize) == METHODS


def test_an_unknown_target() -> None:
    with refused(UsageError, option="--to", value="klingon"):
        load_target("klingon")


class ToyWriter(Writer):
    """One text file with a line per video."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "w")  # noqa: SIM115 (closed by close)

    def write(self, video: PlannedVideo, rows: Array) -> None:
        self.file.write(f"{video.name} {rows.shape[0]} {rows.dtype}\n")

    def close(self) -> None:
        self.file.close()


class Toy(Target):
    """A reader that takes names without ``v_`` and rows at their own times."""

    accepts = frozenset({"length"})
    takes_label_ids = True

    def open(self, plan: ExportPlan, main: Path) -> Writer:
        return ToyWriter(main / "toy.txt")

    def clocks(self, video: PlannedVideo, plan: ExportPlan) -> dict[str, Clock]:
        return {"toy": Clock(video.shown_s, video.shown_s + np.float64(0.25))}

    def usage(self, plan: ExportPlan) -> Usage:
        return Usage(f"toy --ids {sorted(plan.label_ids or {})}")


def test_a_target_from_outside(
    anet_store: Path, anet_annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "toy", TargetEntry("toy", __name__, "Toy", "a text file"))
    (tmp_path / "ids.json").write_text('["Zumba", "Archery"]')
    words = ["export", str(anet_store), "--to", "toy", "--out", str(tmp_path / "out"), "--json"]
    words += ["-a", str(anet_annotations), "--label-ids", str(tmp_path / "ids.json")]
    result = CliRunner().invoke(cli, [*words, "--length", "7", "--dtype", "float16"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["time_errors"]["toy"]["worst_s"] == pytest.approx(0.25)
    assert report["usage"] == "toy --ids ['Archery', 'Zumba']"
    lines = (tmp_path / "out" / "toy.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"{clip.key} 7 float16" for clip in ANET)
    assert "toy" in CliRunner().invoke(cli, ["export", "--help"]).output
    words[words.index("toy")] = "npy"
    refusal = CliRunner().invoke(cli, words, standalone_mode=False).exception
    assert isinstance(refusal, UsageError) and refusal.data["option"] == "--label-ids"
