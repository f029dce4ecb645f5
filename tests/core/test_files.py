"""Files are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from tspcli.core.files import (
    aside_name,
    cache_dir,
    cache_location,
    duplicate,
    explain_write_errors,
    file_sha256,
    has_sha256,
    remove_leftovers,
    replacing,
    replacing_together,
)
from tspcli.errors import ExportError, StoreError, TspError


def test_a_file_is_replaced_at_the_end_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "f.txt"
    with replacing(path) as aside:
        aside.write_text("old")
        assert not path.exists()
    path.chmod(0o640)
    with replacing(path) as aside:
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "g.txt") as aside:
        aside.write_text("new")
    assert (tmp_path / "g.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_aside_cannot_be_guessed(tmp_path: Path) -> None:
    assert len({aside_name(tmp_path / "f.h5") for _ in range(100)}) == 100


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")

    def interrupt(aside: Path) -> None:
        aside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as aside:
        interrupt(aside)
    with pytest.raises(KeyboardInterrupt), replacing_together(path) as (aside,):
        interrupt(aside)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_and_folders_take_their_places_together(tmp_path: Path) -> None:
    folder, file = tmp_path / "beside", tmp_path / "f.h5"
    for text in ("old", "new"):
        with replacing_together(folder, file) as (new_folder, new_file):
            new_folder.mkdir()
            (new_folder / f"{text}.txt").write_text(text)
            new_file.write_text(text)
    assert file.read_text() == "new"
    assert [path.name for path in folder.iterdir()] == ["new.txt"]
    assert sorted(tmp_path.iterdir()) == [folder, file]


def test_a_folder_that_cannot_be_replaced_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old.txt").touch()
    really = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).parent != tmp_path and not any(Path(source).iterdir()):
            raise OSError(errno.EACCES, "Permission denied")
        really(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ExportError) as caught, replacing_together(folder, error=ExportError) as new:
        new[0].mkdir()
    assert caught.value.data["path"] == folder
    assert [path.name for path in folder.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES])
def test_what_the_system_refuses_is_explained(tmp_path: Path, number: int) -> None:
    path = tmp_path / "f.h5"
    with pytest.raises(StoreError) as caught, explain_write_errors(path, resumable=True):
        raise OSError(number, os.strerror(number))
    assert caught.value.data["path"] == path
    assert ("disk is full" in caught.value.message) is (number != errno.EACCES)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught, replacing(tmp_path / "file" / "f.h5"):
        pass
    assert str(tmp_path / "file") in str(caught.value.remedy)


@pytest.mark.parametrize("name", ["f", "f.h5", "x" * 120 + ".shard-1-of-2.h5", "\u00e9" * 110])
def test_leftovers_are_removed_and_what_others_write_is_not(tmp_path: Path, name: str) -> None:
    others = ["f.h5.gvf.h5", "f.1-a.h5", "x" * 120 + ".shard-2-of-2.h5", "\u00e9" * 110 + ".h5"]
    kept = [aside_name(tmp_path / other) for other in others]
    gone = [aside_name(tmp_path / name) for _ in range(2)]
    for path in (*kept, gone[0]):
        path.touch()
    gone[1].mkdir()
    (gone[1] / "content").touch()
    assert remove_leftovers(tmp_path / name) == 2
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert remove_leftovers(tmp_path / "no such folder" / "f") == 0


def test_a_short_write_of_numpy_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="full"), explain_write_errors(tmp_path / "f.npy"):
        raise OSError("9600 requested and 3040 written")


@pytest.mark.parametrize("links", [True, False])
def test_a_duplicate_replaces_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    duplicate(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_files_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_sha256(path) == digest
    assert has_sha256(path, digest[:8].upper())
    assert not has_sha256(path, "00" + digest)


# --- the cache ------------------------------------------------------------------------------------


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


def test_the_cache_is_its_owners_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSPCLI_HOME", str(tmp_path / "own"))
    folder = cache_dir("packages", "deep")
    assert folder == tmp_path / "own" / "packages" / "deep"
    for part in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(part.stat().st_mode) & 0o077 == 0


def test_a_cache_that_cannot_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "file" / "cache"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TSPCLI_HOME", str(place))
    with pytest.raises(TspError) as caught:
        cache_dir()
    assert caught.value.data["path"] == place
    assert "TSPCLI_HOME" in str(caught.value.remedy)
