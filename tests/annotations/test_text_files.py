"""Numbers, times and tables mean one thing, or are refused with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tspcli.annotations.text_files import (
    Place,
    Table,
    count,
    label,
    load_json,
    number,
    parse_time,
    seconds,
)
from tspcli.errors import AnnotationError

PLACE = Place("t.csv", line=3, field="end")


def test_a_place_is_text_and_data() -> None:
    assert str(PLACE) == "t.csv, line 3, end"
    assert str(Place("a.json", video="x").at("fps")) == "a.json, video 'x', fps"
    assert PLACE.error("no", value=1).data == {
        "path": "t.csv",
        "line": 3,
        "field": "end",
        "value": 1,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5", 12.5),
        (" 7 ", 7.0),
        (".5", 0.5),
        ("-3", -3.0),
        ("1e2", 100.0),
        ("1:02.5", 62.5),
        ("90:00", 5400.0),
        ("1:01:02.5", 3662.5),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert parse_time(text, PLACE) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", None, "soon", "nan", "inf", "1_000", "1,5", "0x10", "\u0661\u0662", "1e999", "1 2"),
        *("-1:30", "1:-30", "+1:30", "1:75", "1:2:3:4", "1.5:30", "1:1e1", ":30", "1:", "1: 30"),
    ],
)
def test_what_is_not_a_time(value: object) -> None:
    with refused(AnnotationError, path="t.csv", line=3, field="end"):
        parse_time(value, PLACE)


@pytest.mark.parametrize("value", ["x", True, False, [1], {}, float("nan"), float("inf"), 10**400])
def test_what_is_not_a_number(value: object) -> None:
    for read in (seconds, number, count):
        with refused(AnnotationError, line=3, value=value):
            read(value, PLACE)


def test_empty_values_are_not_numbers() -> None:
    assert number("", PLACE) is None and count(None, PLACE) is None
    assert count("7.6", PLACE) == 8
    with refused(AnnotationError, value=None):
        seconds(None, PLACE)


def test_labels_are_text_or_whole_numbers() -> None:
    assert label("run", PLACE) == "run" and label(7, PLACE) == "7"
    for value in (None, "", " ", True, 1.5, ["x", "y"], {"name": "x"}):
        with refused(AnnotationError, value=value):
            label(value, PLACE)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_tables(delimiter: str) -> None:
    table = Table(f"a{delimiter}b\n1{delimiter}2\n\n3{delimiter}\n4\n", "t.csv")
    assert table.columns == ["a", "b"]
    rows = [(place.line, row) for place, row in table.rows()]
    assert rows == [
        (2, {"a": "1", "b": "2"}),
        (4, {"a": "3", "b": ""}),
        (5, {"a": "4", "b": None}),
    ]


@pytest.mark.parametrize(
    ("text", "line", "value"),
    [
        ("video,start,end,label\na,0,1,run\na,1,2,jump,high\n", 3, "high"),
        ("video,start,end,label\na,0,5,1,5,run\n", 2, "5"),
        ("video;label\na;x\nb;y;z\n", 3, "z"),
        ("video\tcaption\na\tHe runs.\tShe\tjumps.\n", 2, "She"),
    ],
)
def test_lines_longer_than_the_header(text: str, line: int, value: str) -> None:
    with refused(AnnotationError, path="t.csv", line=line, value=value):
        list(Table(text, "t.csv").rows())


def test_separators_at_the_end_of_a_line_are_no_fields() -> None:
    assert [row for _, row in Table("a,b\n1,2,,\n", "t.csv").rows()] == [{"a": "1", "b": "2"}]


def test_quoted_separators_are_no_fields() -> None:
    assert [row["b"] for _, row in Table('a,b\n1,"x,y"\n', "t.csv").rows()] == ["x,y"]


def test_a_column_appears_once() -> None:
    with refused(AnnotationError, line=1):
        Table("video,start,start,end\n", "t.csv")


def test_columns_that_are_needed() -> None:
    with refused(AnnotationError, missing=["b", "c"]):
        Table("a\n", "t.csv").require(("a", "b", "c"), "table", "Expected a,b,c.")


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe\x00{", b"{", b'{"a": "\\ud800"}', b"[" * 100_000),
        *(b'{"a": 1, "a": 1}', b'[{"x": {"b": 1, "c": 2, "b": 3}}]', b'{"\\u0061": 1, "a": 2}'),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with refused(AnnotationError, path=path):
        load_json(path, "file")
    with refused(AnnotationError, path=tmp_path / "none.json"):
        load_json(tmp_path / "none.json", "file")
