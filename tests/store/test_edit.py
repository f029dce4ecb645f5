"""Renaming and removing videos: the rest stays as it was, and so does the file on any error."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.damaged_stores import flip_row, seen, small_store
from tests.builders.refusals import refused
from tspcli.cli.main import cli
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreLockedError, UsageError
from tspcli.store.edit import remove_videos, rename_video
from tspcli.store.gvf import gvf_from_store, read_gvf
from tspcli.store.integrity import examine_store
from tspcli.store.merge import merge_stores


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "feats.h5")


def test_a_renamed_video_keeps_everything_but_its_name(store: Path) -> None:
    attributes, videos = seen(store)
    assert rename_video(store, "v2", "a new name") == "v2"
    videos["a new name"] = videos.pop("v2")
    assert seen(store) == (attributes, videos)
    assert examine_store(store).is_whole


def test_removed_videos_are_gone_and_the_others_whole(store: Path) -> None:
    attributes, videos = seen(store)
    assert remove_videos(store, ["v_v1", "v4", "v4"]) == ["v1", "v4"]
    del videos["v1"], videos["v4"]
    assert seen(store) == (attributes, videos)
    assert examine_store(store).is_whole
    assert remove_videos(store, list(videos)) == list(videos)
    assert seen(store) == (attributes, {})


def test_what_cannot_be_done_leaves_the_file_as_it_was(store: Path) -> None:
    before = store.read_bytes()
    for name, new in (("v9", "w"), ("v1", "v2"), ("v1", "a/b"), ("v1", ""), ("v1", "..")):
        with refused(UsageError):
            rename_video(store, name, new)
    with refused(UsageError):
        remove_videos(store, ["v1", "v9"])
    with one_writer(store), refused(StoreLockedError, path=store):
        remove_videos(store, ["v1"])
    assert store.read_bytes() == before and list(store.parent.iterdir()) == [store]
    flip_row(store, "v1")
    damaged = store.read_bytes()
    with pytest.raises(StoreError):
        rename_video(store, "v2", "w")
    assert store.read_bytes() == damaged


def test_global_features_are_renamed_too(store: Path) -> None:
    gvf_from_store(store, store.with_name("gvf.h5"))
    before = read_gvf(store.with_name("gvf.h5"))
    rename_video(before.path, "v2", "w")
    remove_videos(before.path, ["v3"])
    after = read_gvf(before.path)
    assert sorted(after) == ["v0", "v1", "v4", "v5", "w"]
    np.testing.assert_array_equal(after["w"], before["v2"])
    assert (after.metadata, after.pool) == (before.metadata, before.pool)
    assert after.attributes["w"] == before.attributes["v2"]
    assert examine_store(before.path).is_whole


def test_links_and_files_of_other_programs_are_left_alone(store: Path) -> None:
    merge_stores([store], store.with_name("links.h5"), link=True)
    with h5py.File(store.with_name("official.h5"), "w") as file:
        file["v"] = np.ones((3, 4), "f4")
    for name in ("links.h5", "official.h5"):
        path = store.with_name(name)
        before = path.read_bytes()
        with refused(StoreError, path=path):
            remove_videos(path, ["v1"])
        assert path.read_bytes() == before


def test_the_commands(store: Path) -> None:
    def tsp(*words: object) -> str:
        done = CliRunner().invoke(cli, ["store", *map(str, words)], standalone_mode=False)
        assert done.exception is None, done.exception
        return done.stdout

    assert tsp("list", store).split() == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert json.loads(tsp("rename", store, "v0", "w", "--json")) == {
        "store": str(store), "old": "v0", "new": "w"
    }  # fmt: skip
    assert "v1" in tsp("rename", store, "v1", "x")
    assert json.loads(tsp("remove", store, "v2", "v3", "--json"))["removed"] == ["v2", "v3"]
    assert "1 video" in tsp("remove", store, "v4")
    assert json.loads(tsp("list", store, "--json"))["videos"] == ["v5", "w", "x"]
