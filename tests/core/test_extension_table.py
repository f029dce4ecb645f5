"""Tables take entries of their own, of the running program, and of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tspcli.core.extension_table import Table
from tspcli.errors import DependencyError


class Line(NamedTuple):
    name: str
    value: int = 0


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose entry point adds a line."""
    facts = tmp_path / "colours-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tspcli.test_lines]\nred = test_colours:RED\n")
    code = "from tests.core.test_extension_table import Line\nRED = Line('red', 7)\n"
    (tmp_path / "test_colours.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))


def table() -> Table[Line]:
    return Table("tspcli.test_lines", (Line("one", 1), Line("two", 2)))


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_not_ours_is_looked_for_in_installed_packages() -> None:
    lines = table()
    assert list(lines) == ["one", "two"] and "test_colours" not in sys.modules
    assert "red" in lines and lines["red"].value == 7 and lines.get("red") == Line("red", 7)
    assert list(lines) == ["one", "two", "red"]


@pytest.mark.usefixtures("installed")
def test_all_entries_at_once() -> None:
    assert [line.value for line in table().complete().values()] == [1, 2, 7]


def test_a_program_adds_entries_by_assigning_them() -> None:
    lines = table()
    lines["blue"] = Line("blue", 9)
    assert "blue" in lines and lines.complete()["blue"].value == 9


def test_unknown_names() -> None:
    lines = table()
    assert "green" not in lines and lines.get("green") is None
    with pytest.raises(KeyError):
        lines["green"]


@pytest.mark.usefixtures("installed")
def test_entries_of_others_come_first_where_the_order_decides() -> None:
    assert [line.name for line in table().added_first()] == ["red", "one", "two"]


def test_a_package_whose_entry_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tspcli.test_lines]\nbad = absent_module:BAD\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DependencyError) as caught:
        table().complete()
    assert caught.value.data["value"] == "absent_module:BAD" and "broken" in str(caught.value)
