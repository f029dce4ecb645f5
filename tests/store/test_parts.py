"""Parts: whole or not there, in every history of a run; and the lock that guards them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.builders.refusals import refused
from tests.store.test_store import metadata, rows
from tspcli.core.files import aside_name
from tspcli.core.run_dir import one_writer, report_path
from tspcli.errors import StoreError, StoreMismatchError
from tspcli.store import open_store, write_store
from tspcli.store.parts import PartsFolder, part_name, read_part


def folder(tmp_path: Path, **changes: object) -> PartsFolder:
    parts = PartsFolder(tmp_path / "feats.h5", metadata(**changes))
    parts.open()
    return parts


def commit(parts: PartsFolder, key: str, n: int = 3, seed: int = 0) -> None:
    writer = parts.writer(key, 4)
    for row in rows(n, seed=seed):
        writer.append(row[None])
    parts.add(writer.commit({"duration_s": 1.5, "warnings": "[]"}))


def test_parts_become_the_store_and_vanish(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    commit(parts, "b")
    commit(parts, "a", seed=1)
    assert parts.assemble() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["feats.h5"]
    with open_store(tmp_path / "feats.h5") as store:
        assert list(store) == ["a", "b"]
        np.testing.assert_array_equal(store["a"].rows, rows(3, seed=1))
        assert store["a"].verify() is True
        assert store["a"].duration_s == 1.5


def test_a_later_run_takes_over_finished_parts_and_drops_unfinished_ones(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    commit(parts, "done")
    parts.writer("cut off", 4).append(rows(2))
    again = folder(tmp_path)
    assert list(again.parts) == ["done"]
    assert sorted(path.name for path in again.folder.iterdir()) == sorted(
        [part_name("done"), "settings.json"]
    )


def test_existing_videos_stay(tmp_path: Path) -> None:
    first = folder(tmp_path)
    commit(first, "a")
    first.assemble()
    second = folder(tmp_path)
    commit(second, "b", seed=1)
    assert second.assemble() == 2
    with open_store(tmp_path / "feats.h5") as store:
        assert [video.verify() for video in store.values()] == [True, True]
        np.testing.assert_array_equal(store["a"].rows, rows(3))
    third = folder(tmp_path)
    commit(third, "c")
    assert third.assemble(keep_existing=False) == 1


def test_parts_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    commit(folder(tmp_path), "a")
    with refused(StoreMismatchError, differences={"precision": "fp32, not bf16"}):
        folder(tmp_path, precision="bf16")
    parts = PartsFolder(tmp_path / "feats.h5", metadata(precision="bf16"))
    parts.open(discard=True)
    assert parts.parts == {}


def test_a_store_of_other_settings_that_appears_meanwhile_is_not_mixed_in(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    commit(parts, "a")
    out = tmp_path / "feats.h5"
    write_store(out, [("b", rows(3), {})], metadata(precision="bf16"))
    before = out.read_bytes()
    with refused(StoreMismatchError, differences={"precision": "bf16, not fp32"}):
        parts.assemble()
    assert out.read_bytes() == before and (parts.folder / part_name("a")).exists()


def test_a_part_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    writer = folder(tmp_path).writer("a", 4)
    writer.append(rows(3))
    writer.commit({"duration_s": 1.5})
    parts = PartsFolder(tmp_path / "feats.h5", metadata(precision="bf16"))
    with refused(StoreError, path=parts.folder / part_name("a")):
        parts.take("a")
    assert parts.parts == {}


@pytest.mark.parametrize("damage", ["truncate", "footer", "rename", "empty"])
def test_a_damaged_part_is_computed_again(tmp_path: Path, damage: str) -> None:
    parts = folder(tmp_path)
    commit(parts, "a")
    path = parts.folder / part_name("a")
    data = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(data[4:])
    elif damage == "footer":
        path.write_bytes(data[:-30] + b"x" + data[-29:])
    elif damage == "rename":
        path.rename(parts.folder / part_name("b"))
    else:
        path.write_bytes(b"")
    again = folder(tmp_path)
    assert again.parts == {}
    assert len(again.discarded) == 1


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    writer = parts.writer("a", 4)
    writer.append(rows(2))
    writer.abort()
    assert not list(parts.folder.glob(".*")) and not list(parts.folder.glob("*.part"))


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    write_parts = folder(tmp_path)
    commit(write_parts, "a", n=100)
    write_parts.assemble()
    path = tmp_path / "feats.h5"
    data = bytearray(path.read_bytes())
    at = data.index(rows(100)[50].tobytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with open_store(path) as store:
        assert store["a"].verify() is False


def test_rows_of_a_wrong_width_are_refused(tmp_path: Path) -> None:
    writer = folder(tmp_path).writer("a", 4)
    with pytest.raises(ValueError, match="width 4"):
        writer.append(rows(2, dim=5))


def test_an_unassembled_store_says_so(tmp_path: Path) -> None:
    commit(folder(tmp_path), "a")
    with refused(StoreError, path=tmp_path / "feats.h5", kind="not-assembled", writer=None):
        open_store(tmp_path / "feats.h5")


def test_a_store_that_is_being_written_says_so(tmp_path: Path) -> None:
    out = tmp_path / "feats.h5"
    commit(folder(tmp_path), "a")
    with one_writer(out), refused(StoreError, path=out, kind="not-assembled") as caught:
        open_store(out)
    assert f"process {os.getpid()} on " in str(caught.value.data["writer"])


def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write_store(tmp_path / "file" / "feats.h5", [], metadata())


def test_read_part_tells_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"nonsense")
    with refused(StoreError, path=tmp_path / "x.part"):
        read_part(tmp_path / "x.part")


def test_a_run_clears_what_a_killed_one_left_of_its_store_and_report(tmp_path: Path) -> None:
    store = tmp_path / "f.h5"
    left = [aside_name(path) for path in (store, report_path(store))]
    other = aside_name(tmp_path / "f.h5.other.h5")
    for path in (*left, other):
        path.touch()
    PartsFolder(store, metadata()).open()
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_no_store_is_begun_on_a_full_disk(
    tmp_path: Path, full_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would crash the process where it cannot even close the file."""

    def refuse(*_: object) -> None:
        raise AssertionError("a file was begun")

    monkeypatch.setattr("h5py.File", refuse)
    with pytest.raises(StoreError, match="disk is full"):
        write_store(tmp_path / "f.h5", [], metadata())
