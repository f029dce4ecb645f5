"""Examining and repairing stores: damage is found, and what is intact is saved."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.damaged_stores import flip_row, seen, small_store, without_index
from tests.builders.refusals import refused
from tspcli.cli.doctor import command
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreLockedError
from tspcli.store import open_store
from tspcli.store.gvf import gvf_from_store, read_gvf
from tspcli.store.index import read_index
from tspcli.store.integrity import check_store, examine_store, repair_store
from tspcli.store.merge import merge_stores

pytestmark = pytest.mark.faults

FORMAT_1 = Path(__file__).with_name("format-1.h5")
"""Three videos, written by the last version that wrote format 1."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store") / "feats.h5")


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "feats.h5"))


def flip(path: Path, data: bytes, at: int, bit: int) -> Path:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    return path


def test_what_a_repair_saves_is_what_was_written(original: Path, tmp_path: Path) -> None:
    """A flipped bit anywhere costs no video, one, or those that the damaged list held."""
    data, (attributes, videos) = original.read_bytes(), seen(original)
    rng = random.Random(3)
    saved = 0
    # Behind the attributes of the file, damage to which costs the store.
    for at in (rng.randrange(data.index(b"v0.mp4"), len(data)) for _ in range(12)):
        path = flip(tmp_path / "feats.h5", data, at, rng.randrange(8))
        found = check_store(path)
        if not found.is_damaged:
            continue
        repair = repair_store(path)
        assert repair.original is not None and repair.lost == sorted(found.damaged)
        assert seen(path) == (attributes, {key: videos[key] for key in repair.kept})
        assert check_store(path).is_whole
        saved += len(repair.kept)
        Path(repair.original).unlink()
    assert saved > 12


def test_damage_to_the_index_costs_no_video(store: Path, original: Path) -> None:
    data = store.read_bytes()
    flip(store, data, len(data) - 60, 0)
    with pytest.raises(StoreError) as caught:
        open_store(store)
    assert caught.value.data["path"] == store and "--repair" in str(caught.value.remedy)
    assert len(examine_store(store).intact) == 6
    assert repair_store(store).lost == []
    assert seen(store) == seen(original)


def test_a_list_of_videos_that_lost_one_is_noticed(store: Path) -> None:
    """As a page of an older version leaves it, complete in itself."""
    data = store.read_bytes()
    with h5py.File(store, "r+") as file:
        del file["v2"]
    shorter = store.read_bytes()
    store.write_bytes(shorter + data[len(shorter) :])
    with pytest.raises(StoreError):
        open_store(store)
    assert list(examine_store(store).damaged) == ["v2"]
    assert repair_store(store).kept == ["v0", "v1", "v3", "v4", "v5"]


def test_a_store_without_an_index_is_read_and_checked_through_hdf5(store: Path) -> None:
    without_index(store)
    assert read_index(store) is None
    found = examine_store(store)
    assert found.is_whole and found.notes and len(found.intact) == 6
    with h5py.File(store, "r+") as file:
        file["v2"][0, 0] += 1
        file["v4"].attrs["duration_s"] = 9.0
    assert sorted(examine_store(store).damaged) == ["v2", "v4"]
    assert repair_store(store).lost == ["v2", "v4"]
    assert seen(store)[1].keys() == {"v0", "v1", "v3", "v5"}
    assert read_index(store) is not None


def test_an_intact_store_without_an_index_gets_one(store: Path, original: Path) -> None:
    without_index(store)
    repair = repair_store(store)
    assert repair.original is None and repair.lost == []
    assert seen(store) == seen(original)
    assert read_index(store) is not None
    assert list(store.parent.iterdir()) == [store]


def test_format_1_is_read_checked_and_brought_to_format_2(tmp_path: Path) -> None:
    path = Path(shutil.copy(FORMAT_1, tmp_path / "feats.h5"))
    found = examine_store(path)
    assert found.is_whole and found.is_indexed and found.intact == ["v0", "v1", "v2"]
    with open_store(path) as old:
        assert all(video.verify() for video in old.values())
        merge_stores([path], tmp_path / "new.h5")
        with open_store(tmp_path / "new.h5") as new:
            assert new.metadata == old.metadata
            assert new.file_attributes["format_version"] == 2
            for key, video in old.items():
                assert new[key].attrs == video.attrs
                np.testing.assert_array_equal(new[key].rows, video.rows)
    data = path.read_bytes()
    flip(path, data, data.index(b"v1.mp4"), 0)
    with pytest.raises(StoreError):
        open_store(path)
    assert examine_store(path).is_damaged
    with h5py.File(FORMAT_1) as file:
        flip(path, data, file["v1"].id.get_offset(), 0)
    with open_store(path) as damaged, pytest.raises(StoreError):
        damaged["v1"].checked_rows()
    assert repair_store(path).kept == ["v0", "v2"]


def test_files_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "official.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.ones((3, 4), "f4"), compression="gzip")
    before = path.read_bytes()
    found = examine_store(path)
    assert found.unchecked == ["v"] and not found.is_whole and not found.is_damaged
    assert not found.lacks_only_an_index
    assert repair_store(path).kept == ["v"]
    assert path.read_bytes() == before


def test_reading_that_does_not_terminate_is_a_finding(store: Path) -> None:
    found = examine_store(store, timeout_s=0.01)
    assert found.is_damaged and found.problems and not found.savable


def test_what_cannot_be_saved_stays_as_it_is(store: Path) -> None:
    store.write_bytes(store.read_bytes()[:500])
    with pytest.raises(StoreError) as caught:
        repair_store(store)
    assert caught.value.data["path"] == store
    assert store.stat().st_size == 500 and list(store.parent.iterdir()) == [store]


def test_damaged_rows_are_not_copied_on(store: Path) -> None:
    flip_row(store, "v1")
    with pytest.raises(StoreError):
        merge_stores([store], store.with_name("out.h5"))
    assert not store.with_name("out.h5").exists()


def test_global_features_are_checked_but_not_repaired(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "gvf.h5"
    gvf_from_store(original, path)
    found = examine_store(path)
    assert found.is_whole and found.is_global and len(found.intact) == 6
    data = path.read_bytes()
    flip_row(path, "v1")
    assert list(examine_store(path).damaged) == ["v1"]
    with pytest.raises(StoreError):
        read_gvf(path)
    with refused(StoreError, path=path):
        repair_store(path)
    path.write_bytes(data)
    without_index(path)
    found = examine_store(path)
    assert len(found.unchecked) == 6 and not found.is_whole and not found.is_damaged
    assert repair_store(path).original is None


def test_a_store_that_is_being_written_is_not_repaired(store: Path) -> None:
    with one_writer(store), pytest.raises(StoreLockedError):
        repair_store(store)


def test_the_command(store: Path) -> None:
    flip_row(store, "v1")
    run = CliRunner()

    def doctor(*options: str) -> tuple[int, str]:
        done = run.invoke(command, [str(store), *options], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.return_value, done.stdout

    code, text = doctor()
    assert code == 1 and "v1" in text and "--repair saves 5 videos" in text
    assert json.loads(doctor("--json")[1])["damaged"].keys() == {"v1"}
    code, text = doctor("--repair")
    assert code == 3 and "feats.h5.damaged-1" in text
    assert doctor()[0] == 0
    assert doctor("--repair")[0] == 0
    assert not run.invoke(command, ["--repair"], standalone_mode=False).return_value


@pytest.mark.parametrize("share", [0.97, 0.6])
def test_the_command_promises_only_what_repair_does(store: Path, share: float) -> None:
    data = store.read_bytes()
    store.write_bytes(data[: int(len(data) * share)])
    looked = CliRunner().invoke(command, [str(store)], standalone_mode=False)
    assert looked.return_value == 1
    saves = re.search(r"--repair saves (\d+) video", looked.stdout)
    if saves is None:
        with pytest.raises(StoreError):
            repair_store(store)
    else:
        assert len(repair_store(store).kept) == int(saves[1]) == len(seen(store)[1])


def test_the_command_reports_what_was_checked(original: Path, tmp_path: Path) -> None:
    def verdict(path: Path) -> dict[str, object]:
        arguments = [str(path), "--json"]
        done = CliRunner().invoke(command, arguments, standalone_mode=False)
        assert done.return_value == 0
        return dict(json.loads(done.stdout))

    gvf_from_store(original, tmp_path / "gvf.h5")
    found = verdict(tmp_path / "gvf.h5")
    assert found["is_whole"] and len(list(found["intact"])) == 6  # type: ignore[call-overload]
    with h5py.File(tmp_path / "official.h5", "w") as file:
        file.create_dataset("v", data=np.ones((3, 4), "f4"))
    found = verdict(tmp_path / "official.h5")
    assert found["unchecked"] == ["v"] and not found["is_whole"]
