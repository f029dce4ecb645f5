"""Stores of links: `tsp merge --link`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.stores import VIDEOS, features, store
from tspcli.cli.main import cli
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.store.integrity import examine_store, repair_store
from tspcli.store.merge import merge_stores


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
        with pytest.raises(StoreError, match=r"leads to .*a\.h5, which does not exist"):
            opened["v_0"]
    with pytest.raises(StoreError):
        repair_store(linked)
    store(tmp_path / "a.h5", {"v_0": features(5, 0)}, sampling=Sampling(stride=1))
    with open_store(linked) as opened, pytest.raises(StoreMismatchError, match=r"sampling\.stride"):
        opened["v_0"]


def test_what_does_not_fit_is_refused(linked: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    with pytest.raises(UsageError, match=r"a\.h5 is not in the folder of"):
        merge_stores([tmp_path / "a.h5"], below / "all.h5", link=True)
    with pytest.raises(UsageError, match="holds links itself"):
        merge_stores([linked], tmp_path / "more.h5", link=True)
    with pytest.raises(UsageError, match="not in the folder"):
        merge_stores([below / "b.h5"], below / "b.h5", link=True, overwrite=True)
    twice = store(tmp_path / "c.h5", {"v_0": features(5, 0)})
    with pytest.raises(StoreError, match="'v_0' is in"):
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
            with pytest.raises(StoreError, match="link"):
                opened[key]
