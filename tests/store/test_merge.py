"""Joining stores, shards and links: `tsp merge`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.refusals import refused
from tests.builders.stores import DIM, TSP, VIDEOS, features, store
from tspcli.analysis.inspect import summarize
from tspcli.cli.main import cli
from tspcli.core.files import aside_name
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreLockedError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.store.integrity import examine_store, repair_store
from tspcli.store.merge import merge_stores
from tspcli.store.schema import StoreMetadata
from tspcli.store.store_writer import content_checksum, write_store


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return store(tmp_path / "base.h5", VIDEOS)


class TestMerge:
    def test_joins(self, tmp_path: Path) -> None:
        keys = list(VIDEOS)
        a = store(tmp_path / "a.h5", {k: VIDEOS[k] for k in keys[:2]}, checksums=True)
        b = store(tmp_path / "b.h5", {k: VIDEOS[k] for k in keys[2:]}, checksums=True)
        report = merge_stores([b, a], tmp_path / "all.h5")
        assert report.n_videos == [2, 2] and report.dim == DIM
        with open_store(tmp_path / "all.h5") as merged, open_store(a) as first:
            assert list(merged) == keys
            assert merged.metadata == first.metadata
            for key in keys:
                np.testing.assert_array_equal(merged[key].rows, VIDEOS[key])
                assert merged[key].verify() is True
                assert merged[key].sampling == TSP

    def test_names_every_setting_that_differs(self, base: Path, tmp_path: Path) -> None:
        other = store(
            tmp_path / "b.h5",
            {"v_9": features(5, 1)},
            sampling=Sampling(stride=1),
            weights_sha256="11",
        )
        with pytest.raises(StoreMismatchError) as caught:
            merge_stores([base, other], tmp_path / "all.h5")
        assert "sampling.stride: 1, not 16" in str(caught.value)
        assert "weights_sha256: 11, not 00" in str(caught.value)
        assert not (tmp_path / "all.h5").exists()

    def test_duplicates_are_named(self, base: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "b.h5", {"v_2": features(5, 1)})
        with refused(StoreError, path=other, video="v_2"):
            merge_stores([base, other], tmp_path / "all.h5")

    def test_does_not_mix_known_and_unknown(self, base: Path, tmp_path: Path) -> None:
        foreign = store(tmp_path / "f.h5", {"v_8": features(5, 1)}, sampling=None)
        with refused(StoreMismatchError, path=foreign):
            merge_stores([base, foreign], tmp_path / "all.h5")
        more = store(tmp_path / "g.h5", {"v_9": features(5, 1)}, sampling=None)
        merge_stores([foreign, more], tmp_path / "all.h5")
        with open_store(tmp_path / "all.h5") as merged:
            assert list(merged) == ["v_8", "v_9"]
        wide = store(tmp_path / "w.h5", {"v_7": np.ones((3, 8), "f4")}, sampling=None)
        with refused(StoreMismatchError, path=wide, video="v_7"):
            merge_stores([foreign, wide], tmp_path / "other.h5")

    def test_an_existing_store_is_kept(self, base: Path, tmp_path: Path) -> None:
        other = store(tmp_path / "b.h5", {"v_9": features(5, 1)})
        with refused(StoreError, path=base):
            merge_stores([base, other], base)
        merge_stores([base, other], base, overwrite=True)  # into one of its own inputs
        with open_store(base) as merged:
            assert len(merged) == 5

    def test_what_runs_reported_stays_known(self, tmp_path: Path) -> None:
        paths = []
        for name, bad in (("a", "v_x"), ("b", "v_y")):
            paths.append(store(tmp_path / f"{name}.h5", {f"v_{name}": features(5, 1)}))
            report = {
                "settings": {"stride": 16},
                "wall_s": 2.5,
                "shard": {"index": 1, "keys": ["v_a", "v_b"]},
                "notes": [f"of {name}"],
                "videos": [
                    {"key": f"v_{name}", "status": "done"},
                    {"key": bad, "status": "failed", "reason": "damaged", "detail": "d"},
                ],
            }
            (tmp_path / f"{name}.h5.report.json").write_text(json.dumps(report))
        merge_stores(paths, tmp_path / "all.h5")
        # Keys are those of all videos, for each shard.
        alone = [{"wall_s": 2.5, "shard": {"index": 1}, "notes": [f"of {name}"]} for name in "ab"]
        written = json.loads((tmp_path / "all.h5.report.json").read_text())
        assert written["settings"] == {"stride": 16} and written["runs"] == alone
        # Merging what is merged loses none of them; what is no list of runs is one.
        other = store(tmp_path / "c.h5", {"v_c": features(5, 1)})
        odd = {"runs": 3, "videos": []}
        (tmp_path / "c.h5.report.json").write_text(json.dumps(odd))
        merge_stores([tmp_path / "all.h5", other], tmp_path / "more.h5")
        written = json.loads((tmp_path / "more.h5.report.json").read_text())
        assert written["runs"] == [*alone, {"runs": 3}] and written["counts"]["failed"] == 2
        with open_store(tmp_path / "all.h5") as merged:
            failures = summarize(merged).failures
        assert [failure["key"] for failure in failures] == ["v_x", "v_y"]

    def test_a_store_that_a_run_writes_is_not_merged_into(self, base: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.h5"
        killed = aside_name(out)
        killed.touch()
        for link in (False, True):
            with one_writer(out), pytest.raises(StoreLockedError):
                merge_stores([base], out, link=link)
        assert not out.exists()
        merge_stores([base], out)
        assert not killed.exists() and not out.with_name("out.h5.lock").exists()

    def test_missing_shards_are_named(self, tmp_path: Path) -> None:
        shards = [
            store(tmp_path / f"f.shard-{i}-of-4.h5", {f"v_{i}": features(5, i)}) for i in (1, 3)
        ]
        out = tmp_path / "all.h5"
        absent = [str(tmp_path / f"f.shard-{i}-of-4.h5") for i in (2, 4)]
        with refused(StoreError, missing=absent):
            merge_stores(shards, out)
        assert not out.exists()
        arguments = ["merge", *map(str, shards), "-o", str(out)]
        result = CliRunner().invoke(cli, [*arguments, "--partial"], standalone_mode=False)
        assert "without" in result.stderr and "shard-4-of-4.h5" in result.stderr
        with open_store(out) as merged:
            assert list(merged) == ["v_1", "v_3"]
        # A shard of no video, or of failed ones alone, leaves a report and no store.
        for index, videos in ((2, []), (4, [{"key": "bad", "status": "failed"}])):
            report = {"videos": videos}
            (tmp_path / f"f.shard-{index}-of-4.h5.report.json").write_text(json.dumps(report))
        report = merge_stores(shards, out, overwrite=True)
        assert report.missing_shards == [] and report.n_failed == 1
        with open_store(out) as merged:
            assert [failure["key"] for failure in summarize(merged).failures] == ["bad"]
        # One whose store is gone is missing, whatever its report says.
        report_path = tmp_path / "f.shard-2-of-4.h5.report.json"
        report_path.write_text(json.dumps({"videos": [{"key": "v_2", "status": "done"}]}))
        with refused(StoreError, missing=absent[:1]):
            merge_stores(shards, out, overwrite=True)

    def test_command(self, base: Path, tmp_path: Path) -> None:
        out = tmp_path / "all.h5"
        result = CliRunner().invoke(cli, ["merge", str(base), "-o", str(out), "--json"])
        assert json.loads(result.stdout)["n_videos"] == [4] and out.is_file()


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Links to a store beside and to one in a folder below."""
    (tmp_path / "below").mkdir()
    keys = list(VIDEOS)
    inputs = [
        store(tmp_path / "a.h5", {k: VIDEOS[k] for k in keys[:2]}, checksums=True),
        store(tmp_path / "below" / "b.h5", {k: VIDEOS[k] for k in keys[2:]}, checksums=True),
    ]
    arguments = ["merge", *map(str, inputs), "-o", str(tmp_path / "all.h5"), "--link"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    return tmp_path / "all.h5"


def test_every_reader_follows_them(linked: Path, tmp_path: Path) -> None:
    with h5py.File(linked, "r") as file:
        assert list(file) == list(VIDEOS)
        for key, rows in VIDEOS.items():
            np.testing.assert_array_equal(file[key][()], rows)
    with open_store(linked) as opened, open_store(tmp_path / "a.h5") as first:
        assert opened.metadata == first.metadata
        assert all(video.verify() for video in opened.values())
    assert examine_store(linked).intact == list(VIDEOS)
    run = CliRunner().invoke
    assert run(cli, ["inspect", str(linked), "--check"]).exit_code == 0
    exported = run(cli, ["export", str(linked), "--to", "npy", "--out", str(tmp_path / "npy")])
    assert exported.exit_code == 0, exported.output
    np.testing.assert_array_equal(np.load(next((tmp_path / "npy").rglob("v_3.npy"))), VIDEOS["v_3"])
    merge_stores([linked], tmp_path / "rows.h5")
    with open_store(tmp_path / "rows.h5") as copied:
        assert not copied.is_linked and list(copied) == list(VIDEOS)


def test_they_move_with_their_stores(linked: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("all.h5", "a.h5", "below"):
        (tmp_path / name).rename(moved / name)
    with open_store(moved / "all.h5") as opened:
        np.testing.assert_array_equal(opened["v_3"].rows, VIDEOS["v_3"])


def test_a_store_that_is_gone_or_another_is_named(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "a.h5").rename(tmp_path / "away.h5")
    with open_store(linked) as opened:
        assert len(opened) == 4 and opened["v_2"].n_rows == len(VIDEOS["v_2"])
        with refused(StoreError, path=tmp_path / "a.h5"):
            opened["v_0"]
    with pytest.raises(StoreError):
        repair_store(linked)
    store(tmp_path / "a.h5", {"v_0": features(5, 0)}, sampling=Sampling(stride=1))
    with open_store(linked) as opened, refused(StoreMismatchError, path=tmp_path / "a.h5"):
        opened["v_0"]


def test_what_does_not_fit_is_refused(linked: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    with refused(UsageError, path=tmp_path / "a.h5"):
        merge_stores([tmp_path / "a.h5"], below / "all.h5", link=True)
    with refused(UsageError, path=linked):
        merge_stores([linked], tmp_path / "more.h5", link=True)
    with refused(UsageError, path=below / "b.h5"):
        merge_stores([below / "b.h5"], below / "b.h5", link=True, overwrite=True)
    twice = store(tmp_path / "c.h5", {"v_0": features(5, 0)})
    with refused(StoreError, path=twice, video="v_0"):
        merge_stores([tmp_path / "a.h5", twice], tmp_path / "more.h5", link=True)
    assert not (tmp_path / "more.h5").exists()


def test_they_are_not_written_on_a_full_disk(linked: Path, full_disk: None) -> None:
    before = linked.read_bytes()
    with pytest.raises(StoreError, match="disk is full"):
        merge_stores([linked.with_name("a.h5")], linked, link=True, overwrite=True)
    assert linked.read_bytes() == before


def test_links_of_strangers_lead_nowhere(linked: Path, tmp_path: Path) -> None:
    """Whatever a file says of itself, it shows nothing from outside its folder, and only stores."""
    folder = tmp_path / "given"
    folder.mkdir()
    secret = shutil.copy(tmp_path / "a.h5", tmp_path / "secret.h5")
    hop = store(folder / "hop.h5", {"v_9": features(5, 9)})
    with h5py.File(hop, "a") as file:
        file["v_0"] = h5py.ExternalLink(str(secret), "/v_0")
    names = {"up": "../secret.h5", "far": os.fspath(secret), "hop": "hop.h5"}
    with h5py.File(linked, "r") as trusted, h5py.File(folder / "f.h5", "w") as file:
        file.attrs.update(trusted.attrs)
        for key, name in names.items():
            file[key] = h5py.ExternalLink(name, "/v_0")
    with open_store(folder / "f.h5") as opened:
        for key in names:
            with refused(StoreError, path=folder / ("hop.h5" if key == "hop" else "f.h5")):
                opened[key]


@pytest.mark.parametrize("at", [4, 12, 24])
def test_damage_to_the_list_of_chunks_is_named(tmp_path: Path, at: int) -> None:
    """It is read only when rows are, and raises what HDF5 raises nowhere else."""
    path = store(tmp_path / "a.h5", {"v": features(700, 0), "w": features(5, 0)}, checksums=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"FAHD") + at] ^= 1
    path.write_bytes(data)
    with refused(StoreError, path=path):
        merge_stores([path], tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
    assert repair_store(path).lost == ["v"]


def test_videos_of_an_older_version_are_not_merged(tmp_path: Path) -> None:
    """Each is complete in itself, so that only the index shows that a write was lost."""
    about = StoreMetadata.build(sampling=Sampling(), encoder={"backbone": "tiny"})
    versions = []
    for value in (1, 2):
        rows = np.full((4, 8), value, np.float32)
        attributes: dict[str, Any] = {"duration_s": 3.5}
        attributes["checksum"] = content_checksum(rows, attributes)
        write_store(tmp_path / f"{value}.h5", [("v", rows, attributes)], about)
        versions.append((tmp_path / f"{value}.h5").read_bytes())
    older, newer = versions
    end = int.from_bytes(newer[28:36], "little")
    (tmp_path / "lost.h5").write_bytes(older[:end] + newer[end:])
    with pytest.raises(StoreError) as caught:
        merge_stores([tmp_path / "lost.h5"], tmp_path / "out.h5")
    assert caught.value.data["value"] == "v"
    assert not (tmp_path / "out.h5").exists()
