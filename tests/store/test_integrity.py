"""Stores damaged by hand: every flipped bit is noticed, and all that is whole is saved."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.damaged_stores import seen, small_store, without_index
from tspcli.cli.doctor import command
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreLockedError, TspError
from tspcli.store import open_store
from tspcli.store.gvf import gvf_from_store, read_gvf
from tspcli.store.integrity import examine_store, repair_store
from tspcli.store.merge import merge_stores
from tspcli.store.trailer import read_trailer

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store") / "feats.h5")


def flip(path: Path, data: bytes, at: int, bit: int) -> Path:
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    return path


def check_one_flip(original: Path, path: Path, at: int) -> int:
    """Repair a store of which one bit is flipped; return how many videos were lost."""
    found = examine_store(path)
    assert not found.is_whole, at
    repair = repair_store(path)
    assert (len(repair.lost), len(repair.kept)) in ((0, 6), (1, 5)), at
    attributes, videos = seen(original)
    expected = {key: value for key, value in videos.items() if key not in repair.lost}
    assert seen(path) == (attributes, expected), at
    assert examine_store(path).is_whole
    assert repair.original is not None
    Path(repair.original).unlink()
    return len(repair.lost)


def flips_everywhere(original: Path, folder: Path, places: list[int]) -> dict[str, int]:
    data = original.read_bytes()
    rng = random.Random(11)
    counts = {"flips": 0, "lost": 0}
    for at in places:
        path = flip(folder / "feats.h5", data, at, rng.randrange(8))
        counts["lost"] += check_one_flip(original, path, at)
        counts["flips"] += 1
    return counts


def test_a_flipped_bit_anywhere_is_found_and_costs_one_video_at_most(
    original: Path, tmp_path: Path
) -> None:
    data = original.read_bytes()
    trailer = read_trailer(original)
    assert trailer is not None
    rows = trailer.videos["v3"].offset
    # The superblock, the root group, rows, attributes, the index, its checksum and its magic.
    places = [0, 9, 44, 100, 700, rows, data.index(b"v3.mp4"), trailer.hdf5_bytes + 5]
    places += [len(data) - 20, len(data) - 1, len(data) - 46]
    rng = random.Random(3)
    places += [rng.randrange(len(data)) for _ in range(20)]
    counts = flips_everywhere(original, tmp_path, places)
    assert counts["lost"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_third_byte_of_a_store(original: Path, tmp_path: Path) -> None:
    size = original.stat().st_size
    print(flips_everywhere(original, tmp_path, list(range(0, size, 3))))


def test_damage_to_what_leads_to_rows_is_refused_before_hdf5_reads_it(
    original: Path, tmp_path: Path
) -> None:
    data = original.read_bytes()
    path = flip(tmp_path / "feats.h5", data, data.index(b"v3.mp4"), 0)
    with pytest.raises(StoreError, match="is damaged") as caught:
        open_store(path)
    assert "--repair" in str(caught.value.remedy)


def test_a_store_without_an_index_is_read_and_checked_through_hdf5(
    original: Path, tmp_path: Path
) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(original.read_bytes())
    without_index(path)
    assert read_trailer(path) is None
    found = examine_store(path)
    assert found.is_whole and found.notes and len(found.intact) == 6
    with h5py.File(path, "r+") as file:
        file["v2"][0, 0] += 1
        file["v4"].attrs["duration_s"] = 9.0
    assert sorted(examine_store(path).damaged) == ["v2", "v4"]
    assert repair_store(path).lost == ["v2", "v4"]
    assert seen(path)[1].keys() == {"v0", "v1", "v3", "v5"}
    assert read_trailer(path) is not None


def test_a_whole_store_of_an_earlier_version_gets_an_index(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(original.read_bytes())
    without_index(path)
    repair = repair_store(path)
    assert repair.original is None and repair.lost == []
    assert seen(path) == seen(original)
    assert read_trailer(path) is not None
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "official.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.ones((3, 4), "f4"), compression="gzip")
    before = path.read_bytes()
    found = examine_store(path)
    assert found.unchecked == ["v"] and not found.is_whole and not found.is_damaged
    assert "--repair" not in "".join(found.notes)
    assert repair_store(path).kept == ["v"]
    assert path.read_bytes() == before


def test_hdf5_that_dies_or_hangs_is_a_finding(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tspcli.store import integrity as repair

    path = tmp_path / "feats.h5"
    path.write_bytes(original.read_bytes())
    without_index(path)
    monkeypatch.setattr(repair, "_LOOK", "import os; os.abort()")
    assert "SIGABRT" in examine_store(path).problems[0]
    monkeypatch.setattr(repair, "_LOOK", "import time; time.sleep(60)")
    monkeypatch.setattr(repair, "_LIMIT_S", 0.5)
    assert "terminate" in examine_store(path).problems[0]
    with pytest.raises(StoreError, match="Not one video"):
        repair_store(path)
    assert list(tmp_path.iterdir()) == [path]


def test_mutated_stores_without_an_index_end_in_errors_with_a_remedy(
    original: Path, tmp_path: Path
) -> None:
    """In a process of its own for each: without its index HDF5 itself may crash or hang."""
    plain = tmp_path / "plain.h5"
    plain.write_bytes(original.read_bytes())
    data = without_index(plain).read_bytes()
    counts = {"read": 0, "refused": 0, "hdf5 died": 0}
    rng = random.Random(2)
    for _ in range(150):
        path = flip(tmp_path / "m.h5", data, rng.randrange(len(data)), rng.randrange(8))
        if rng.random() < 0.2:
            path.write_bytes(path.read_bytes()[: rng.randrange(len(data))])
        child = os.fork()
        if not child:
            os._exit(_read_everything(path))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 1) or code < 0, f"a traceback instead of a message ({code})"
        counts["read" if code == 0 else "refused" if code == 1 else "hdf5 died"] += 1
    assert counts["refused"] > 40 and counts["hdf5 died"] <= 3, counts


def _read_everything(path: Path) -> int:
    import signal
    import traceback

    signal.alarm(20)
    try:
        with open_store(path) as store:
            for video in store.values():
                _ = video.rows, video.attrs, video.sampling, video.duration_s, video.warnings
                video.verify()
        return 0
    except TspError as error:
        return 1 if error.remedy else 3
    except BaseException:
        traceback.print_exc()
        return 2


def test_damaged_rows_are_not_copied_on(original: Path, tmp_path: Path) -> None:
    data = original.read_bytes()
    trailer = read_trailer(original)
    assert trailer is not None
    path = flip(tmp_path / "a.h5", data, trailer.videos["v1"].offset, 3)
    with pytest.raises(StoreError, match="'v1' are not those that were computed"):
        merge_stores([path], tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_global_features_are_checked_whole(original: Path, tmp_path: Path) -> None:
    gvf_from_store(original, tmp_path / "gvf.h5")
    found = examine_store(tmp_path / "gvf.h5")
    assert found.is_whole and len(found.intact) == 6
    data = (tmp_path / "gvf.h5").read_bytes()
    rng = random.Random(4)
    for _ in range(25):
        path = flip(tmp_path / "bad.h5", data, rng.randrange(len(data)), rng.randrange(8))
        assert examine_store(path).is_damaged
    with pytest.raises(StoreError, match="global features") as refused:
        repair_store(path)
    assert "tsp gvf" in str(refused.value.remedy)
    path = flip(tmp_path / "bad.h5", data, 100, 0)
    with pytest.raises(StoreError, match="is damaged"):
        read_gvf(path)
    without_index(tmp_path / "gvf.h5")
    found = examine_store(tmp_path / "gvf.h5")
    assert len(found.unchecked) == 6 and not found.is_whole and not found.is_damaged
    assert "--repair" not in "".join(found.notes)
    assert repair_store(tmp_path / "gvf.h5").original is None


def test_a_store_that_is_being_written_is_not_repaired(original: Path, tmp_path: Path) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(original.read_bytes())
    with one_writer(path), pytest.raises(StoreLockedError):
        repair_store(path)


def test_the_command(original: Path, tmp_path: Path) -> None:
    data = original.read_bytes()
    trailer = read_trailer(original)
    assert trailer is not None
    path = flip(tmp_path / "feats.h5", data, trailer.videos["v1"].offset, 3)
    run = CliRunner()

    def doctor(*options: str) -> tuple[int, str]:
        done = run.invoke(command, [str(path), *options], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.return_value, done.stdout

    code, text = doctor()
    assert code == 1 and "damaged: v1" in text and "--repair saves 5 videos" in text
    assert json.loads(doctor("--json")[1])["damaged"].keys() == {"v1"}
    code, text = doctor("--repair")
    assert code == 3 and "1 video is lost" in text and "feats.h5.damaged-1" in text
    code, text = doctor()
    assert code == 0 and text.startswith(f"{path}: 5 intact, 0 damaged. It is intact")
    assert doctor("--repair")[0] == 0
    assert not run.invoke(command, ["--repair"], standalone_mode=False).return_value


@pytest.mark.parametrize(("indexed", "share"), [(True, 0.97), (False, 0.6)])
def test_the_command_promises_only_what_repair_does(
    original: Path, tmp_path: Path, indexed: bool, share: float
) -> None:
    path = tmp_path / "feats.h5"
    path.write_bytes(original.read_bytes())
    if not indexed:
        without_index(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    looked = CliRunner().invoke(command, [str(path)], standalone_mode=False)
    assert looked.return_value == 1 and "--repair adds" not in looked.stdout
    saves = re.search(r"--repair saves (\d+) video", looked.stdout)
    assert (saves is None) == ("can save nothing" in looked.stdout)
    if saves is None:
        with pytest.raises(StoreError, match="Not one video"):
            repair_store(path)
    else:
        assert len(repair_store(path).kept) == int(saves[1])
        assert len(seen(path)[1]) == int(saves[1])


def test_the_command_says_what_was_checked(original: Path, tmp_path: Path) -> None:
    def verdict(path: Path) -> tuple[int, str]:
        done = CliRunner().invoke(command, [str(path)], standalone_mode=False)
        return done.return_value, done.stdout.splitlines()[-1].removeprefix(f"{path}: ")

    gvf_from_store(original, tmp_path / "gvf.h5")
    code, text = verdict(tmp_path / "gvf.h5")
    assert code == 0 and text.startswith("6 intact, 0 damaged. It is intact")
    with h5py.File(tmp_path / "official.h5", "w") as file:
        file.create_dataset("v", data=np.ones((3, 4), "f4"))
    code, text = verdict(tmp_path / "official.h5")
    assert code == 0 and text.startswith("0 intact, 0 damaged, 1 without a checksum. ")
    assert "no checksums to verify" in text and "It is intact" not in text
