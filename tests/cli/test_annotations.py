"""`tsp annotations` from the outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.builders.annotations import write_example
from tests.builders.refusals import refused
from tspcli.annotations import read_groundtruth
from tspcli.cli.annotations import command
from tspcli.errors import AnnotationError, UsageError


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


METADATA = "filename,video-duration,fps,video-frames\n"


def test_csv_with_metadata_then_check(tmp_path: Path) -> None:
    table = write(
        tmp_path / "actions.csv", "video,start,end,label\na,10,20,run\nb,5,9,run\nb,20,30,jump\n"
    )
    train = write(tmp_path / "m1.csv", METADATA + "a.mp4,60,30,1800\n")
    valid = write(tmp_path / "m2.csv", METADATA + "b.mp4,40,30,1200\n")
    out = tmp_path / "tables"
    arguments = ["convert", table, "--metadata", f"train={train}", "--metadata", f"valid={valid}"]
    result = CliRunner().invoke(command, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "train: 1 video, 1 action, 2 background rows" in result.output
    rows = read_groundtruth(out / "valid_groundtruth.csv")
    assert [(r.start_s, r.end_s) for r in rows if r.label is None] == [(0, 5), (9, 20), (30, 40)]

    arguments = ["check", "--train", str(out / "train_groundtruth.csv")]
    arguments += ["--valid", str(out / "valid_groundtruth.csv"), "--json"]
    arguments += ["--metadata", f"train={train}", "--metadata", f"valid={valid}"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 1
    report = json.loads(result.stdout)
    assert [f["kind"] for f in report["findings"]] == ["class-in-validation-alone"]
    assert report["chance"]["valid"][1]["majority"] == 3 / 5


@pytest.mark.parametrize(
    ("rule", "gaps"),
    [([], [(0, 10), (25, 60)]), (["--background", "union"], [(0, 10), (50, 60)])],
    ids=["as-released", "union"],
)
def test_activitynet_rows_are_those_released(
    tmp_path: Path, rule: list[str], gaps: list[tuple[float, float]]
) -> None:
    said = [{"segment": [10, 50], "label": "long"}, {"segment": [20, 25], "label": "short"}]
    video = {"subset": "training", "duration": 60, "annotations": said}
    source = write(tmp_path / "anet.json", json.dumps({"database": {"a": video}}))
    table = write(tmp_path / "train.csv", METADATA + "v_a.mp4,60,30,1800\n")
    arguments = ["convert", source, "--metadata", table, "--out", str(tmp_path), *rule]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"(used: {rule[-1] if rule else 'official'}): 1 (v_a.mp4)" in result.output
    rows = read_groundtruth(tmp_path / "train_groundtruth.csv")
    assert [(r.start_s, r.end_s) for r in rows if r.label is None] == gaps


def test_check_prints_chance_levels(tmp_path: Path) -> None:
    header = "filename,t-start,t-end,action-label,video-duration\n"
    table = write(tmp_path / "t.csv", header + "a.mp4,0,9,run,40\na.mp4,9,40,,40\n")
    result = CliRunner().invoke(
        command, ["check", "--train", table], standalone_mode=False, catch_exceptions=False
    )
    assert result.return_value == 0
    assert "chance level of the region head: 50.00 %" in result.output
    assert "chance level of the action head: 100.00 %" in result.output


ROWS = "video,start,end,label\na,10,20,run\nb,5,9,run\n"


def run(*words: object) -> str:
    """The output of a command; its errors are raised."""
    arguments = [str(word) for word in words]
    return (
        CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False).output
    )


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    table = write(tmp_path / "actions.csv", ROWS)
    metadata = write(tmp_path / "m.csv", METADATA + "a.mp4,60,30,1800\nb.mp4,40,30,1200\n")
    return [table, "--metadata", f"train={metadata}"]


def test_other_tables_are_replaced_only_when_asked_for(given: list[str], tmp_path: Path) -> None:
    out = tmp_path / "tables"
    words = ["convert", *given, "--out", out]
    assert run(*words) == run(*words)  # the same tables again
    table = out / "train_groundtruth.csv"
    made = table.read_text()
    table.write_text("mine\n")
    labels = (out / "action_label_mapping.json").read_text()
    with refused(AnnotationError, path=table, option="--out"):
        run(*words, "--include-unannotated")
    assert table.read_text() == "mine\n"
    run(*words, "--overwrite")
    assert table.read_text() == made
    assert (out / "action_label_mapping.json").read_text() == labels
    assert not list(out.glob("*.tmp"))


def test_an_input_is_never_replaced(given: list[str], tmp_path: Path) -> None:
    source = tmp_path / "tables" / "train_groundtruth.csv"
    source.parent.mkdir()
    source.write_text(ROWS)
    with refused(AnnotationError, path=source, option="--out"):
        run("convert", source, *given[1:], "--out", source.parent, "--overwrite")
    metadata = tmp_path / "tables" / "train_metadata.csv"
    metadata.write_text(METADATA + "a.mp4,60.0,30,1800\nb.mp4,40,30,1200\n")
    words = ["convert", given[0], "--metadata", metadata, "--out", source.parent, "--overwrite"]
    with refused(AnnotationError, path=metadata, option="--out"):
        run(*words)
    assert source.read_text() == ROWS


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--out", "FILE"], AnnotationError),
        (["--min-gap", "nan"], click.BadParameter),
        (["--min-gap", "inf"], click.BadParameter),
        (["--column", "foo=bar"], AnnotationError),
        (["--column", "label=label", "--column", "label=video"], click.BadParameter),
    ],
)
def test_words_that_make_no_sense(
    given: list[str], tmp_path: Path, words: list[str], kind: type[Exception]
) -> None:
    file = write(tmp_path / "file", "")
    words = [file if word == "FILE" else word for word in words]
    with pytest.raises(kind):
        run("convert", *given, "--out", tmp_path / "tables", *words)
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_times_have_to_be_numbers(given: list[str], tmp_path: Path, value: str) -> None:
    segment = '{"segment": [1, VALUE], "label": "run"}'
    text = '{"database": {"a": {"subset": "training", "annotations": [' + segment + "]}}}"
    source = write(tmp_path / "anet.json", text.replace("VALUE", value))
    with refused(AnnotationError, video="a", field="segment"):
        run("convert", source, *given[1:], "--out", tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_reversed_segments_are_left_out_and_counted(given: list[str], tmp_path: Path) -> None:
    table = write(tmp_path / "actions.csv", ROWS + "a,5,2,run\n")
    said = run("convert", table, *given[1:], "--out", tmp_path / "tables")
    assert "1 row (ends before it starts)" in said
    rows = read_groundtruth(tmp_path / "tables" / "train_groundtruth.csv")
    own = sorted((r.start_s, r.end_s) for r in rows if r.filename == "a.mp4")
    assert own == [(0, 10), (10, 20), (20, 60)]


def test_words_of_one_subset_may_differ(given: list[str], tmp_path: Path) -> None:
    rows = "video,start,end,label,subset\na,10,20,run,train\na,30,40,run,%s\n"
    table = write(tmp_path / "actions.csv", rows % "validation")
    with refused(AnnotationError, line=3, video="a", value="validation"):
        run("convert", table, *given[1:], "--out", tmp_path / "tables")
    table = write(tmp_path / "actions.csv", rows % "Training")
    run("convert", table, *given[1:], "--out", tmp_path / "tables")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--videos", "foo=."], UsageError),
        (["--metadata", "valid=m.csv"], UsageError),
        (["--clip-seconds", "nan"], click.BadParameter),
    ],
)
def test_checks_that_would_look_at_nothing(
    tmp_path: Path, words: list[str], kind: type[Exception]
) -> None:
    header = "filename,t-start,t-end,action-label,video-duration\n"
    table = write(tmp_path / "t.csv", header + "a.mp4,0,9,run,40\na.mp4,9,40,,40\n")
    with pytest.raises(kind):
        run("check", "--train", table, *words)


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        ("activitynet", "anet.json", "official"),
        ("csv", "mine.tsv", "union"),
        ("thumos14", "Archery_val.txt", "union"),
    ],
)
def test_former_commands_remain(tmp_path: Path, name: str, source: str, rule: str) -> None:
    metadata = write(tmp_path / "m.csv", METADATA + "v_abc.mp4,60,30,1800\n")
    words = [write_example(tmp_path, source), "--metadata", f"train={metadata}", "--json"]
    names = (name, "convert")
    reports = [json.loads(run(each, *words, "--out", tmp_path / each)) for each in names]
    assert reports[0]["subsets"]["train"]["n_background"] == 1
    for report in reports:
        assert report["gap_rule"] == rule
        assert report["subsets"]["train"].pop("groundtruth")
        assert report["subsets"]["train"].pop("metadata") and report.pop("labels")
    assert reports[0] == reports[1]
    assert name not in CliRunner().invoke(command, ["--help"]).output.split("Commands:")[1]


def test_a_dialect_may_be_named(tmp_path: Path) -> None:
    """A table of THUMOS14's videos is a table, unless it is said to be THUMOS14's."""
    name = "video_validation_0000051"
    table = write(tmp_path / "t.csv", f"video,start,end,label\n{name},10,20,Dive\n")
    metadata = write(tmp_path / "all.csv", METADATA + f"{name}.mp4,60,30,1800\n")
    words = [table, "--metadata", f"all={metadata}", "--json", "--out"]
    assert list(json.loads(run("convert", *words, tmp_path / "1"))["subsets"]) == ["all"]
    found = json.loads(run("convert", *words, tmp_path / "2", "--dialect", "thumos14"))
    assert list(found["subsets"]) == ["valid"] and found["dialect"] == "thumos14"
    with refused(AnnotationError):
        run("convert", *words, tmp_path / "3", "--dialect", "activitynet")
    with refused(UsageError, option="--column"):
        run("convert", *words, tmp_path / "4", "--dialect", "bsn", "--column", "video=x")


@pytest.mark.parametrize("actions", [[(10, 50), (20, 25)], [(3, 20), (22, 40), (44, 58)], [(6, 7)]])
def test_what_is_said_of_background_explains_its_rows(
    tmp_path: Path, actions: list[tuple[float, float]]
) -> None:
    """The same actions as ActivityNet's JSON and as a table, whose defaults differ."""
    said = [{"segment": segment, "label": "run"} for segment in actions]
    database = {"database": {"a": {"duration": 60, "annotations": said}}}
    released = write(tmp_path / "a.json", json.dumps(database))
    rows = "".join(f"a,{start},{end},run\n" for start, end in actions)
    table = write(tmp_path / "a.csv", "video,start,end,label\n" + rows)
    metadata = write(tmp_path / "m.csv", METADATA + "a.mp4,60,30,1800\n")

    def convert(source: str, name: str, *words: object) -> tuple[list[str], list[tuple]]:
        out = tmp_path / name
        report = run("convert", source, "--metadata", f"train={metadata}", "--out", out, *words)
        found = re.search(r"--min-gap \S+ --background \w+", report)
        assert found is not None
        rows = read_groundtruth(out / "train_groundtruth.csv")
        return found[0].split(), [(r.start_s, r.end_s) for r in rows if r.label is None]

    (theirs, as_released), (ours, as_table) = convert(released, "1"), convert(table, "2")
    assert theirs != ours
    assert convert(table, "3", *theirs) == (theirs, as_released)
    assert convert(released, "4", *ours) == (ours, as_table)
