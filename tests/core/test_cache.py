"""Where the cache is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tspcli.core.files import cache_dir, cache_location
from tspcli.errors import TspError


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_location() == tmp_path / "own"
    monkeypatch.delenv("TSPCLI_HOME")
    assert cache_location() == tmp_path / "xdg" / "tspcli"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_location() == tmp_path / "home" / ".cache" / "tspcli"
    assert not any(tmp_path.iterdir())


def test_it_is_the_owners_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "own"))
    folder = cache_dir("packages", "deep")
    assert folder == tmp_path / "own" / "packages" / "deep"
    for part in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(part.stat().st_mode) & 0o077 == 0


def test_a_place_that_cannot_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(TspError, match="cannot be made") as caught:
        cache_dir()
    assert str(tmp_path / "file" / "cache") in caught.value.message
    assert "TSPCLI_HOME" in str(caught.value.remedy)
