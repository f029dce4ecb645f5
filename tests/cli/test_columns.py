"""``--column`` in the commands that show annotations: a table with columns of any name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.stores import features, store
from tspcli.cli.main import cli
from tspcli.errors import AnnotationError, UsageError

COLUMNS = ["--column", "video=clip", "--column", "start=a", "--column", "end=b"]
LABEL = ["--column", "label=what"]


@pytest.fixture
def feats(tmp_path: Path) -> str:
    return str(store(tmp_path / "s.h5", {"v_a": features(20, 0)}))


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "odd.tsv").write_text("clip\ta\tb\twhat\na.mp4\t0:02\t0:09\tcartwheel\n")
    return str(tmp_path / "odd.tsv")


def test_plot_draws_the_segments(tmp_path: Path, feats: str, table: str) -> None:
    page = tmp_path / "p.html"
    words = ["plot", feats, "a", "-o", str(page), "-a", table, *COLUMNS]
    result = CliRunner().invoke(cli, [*words, *LABEL], catch_exceptions=False)
    assert result.exit_code == 0 and "cartwheel" in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert isinstance(result.exception, AnnotationError)
    assert result.exception.data["missing"] == "label"


def test_compare_measures_separation(feats: str, table: str) -> None:
    words = ["compare", feats, feats, "-a", table, *COLUMNS, *LABEL, "--json"]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert all(isinstance(value, float) for value in json.loads(result.stdout)["separations"])


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["plot", "{feats}", "a", "-o", "x.html"], UsageError),
        (["compare", "{feats}", "{feats}"], UsageError),
        (["view", "{feats}", "--no-browser"], UsageError),
        (["localize", "predict", "-r", "run", "-f", "{feats}", "-o", "x.json"], UsageError),
    ],
)
def test_without_annotations_it_has_no_effect(
    feats: str, command: list[str], kind: type[Exception]
) -> None:
    words = [word.format(feats=feats) for word in command]
    result = CliRunner().invoke(cli, [*words, *COLUMNS], standalone_mode=False)
    assert isinstance(result.exception, kind)
    assert result.exception.data["option"] == "columns"


def test_a_viewer_edits_it(feats: str, table: str) -> None:
    pytest.importorskip("starlette")
    from tspcli.annotations.editing import EditedSegment
    from tspcli.store import open_store
    from tspcli.viewer.workspace import Workspace

    columns = {"video": "clip", "start": "a", "end": "b", "label": "what"}
    with open_store(feats) as opened:
        work = Workspace([opened], annotations_path=Path(table), columns=columns)
        try:
            (segment,) = work.segments_of("v_a")
            assert segment[:3] == (2, 9, "cartwheel") and work.version is not None
            work.save(work.version, {"v_a": [segment, EditedSegment(10, 11.5, "jump")]})
            assert [s.label for s in work.segments_of("v_a")] == ["cartwheel", "jump"]
        finally:
            work.close()
    lines = Path(table).read_text(encoding="utf-8").splitlines()
    assert lines[1] == "a.mp4\t0:02\t0:09\tcartwheel"
    assert lines[2].split("\t")[1:] == ["0:10", "0:11.5", "jump"]
