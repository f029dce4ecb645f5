"""The store: layout, metadata, times, checksums, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders.refusals import refused
from tspcli.errors import StoreError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, open_store, write_store
from tspcli.store.hdf5_values import plain
from tspcli.store.schema import sampling_attributes

ENCODER = {
    "backbone": "r2plus1d_18",
    "weights": "some-name",
    "weights_sha256": "ab" * 32,
    "precision": "fp32",
    "preprocessing": {"height": 128, "width": 171},
}


def metadata(**changes: object) -> StoreMetadata:
    sampling = changes.pop("sampling", Sampling())
    assert isinstance(sampling, Sampling)
    return StoreMetadata.build(sampling=sampling, encoder={**ENCODER, **changes})


def rows(n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def test_the_official_way_of_reading_works(tmp_path: Path) -> None:
    data = rows(5)
    write_store(tmp_path / "f.h5", [("v_ID", data, {"duration_s": 6.0})], metadata())
    with h5py.File(tmp_path / "f.h5") as file:
        assert list(file) == ["v_ID"]
        assert file["v_ID"].dtype == np.float32
        np.testing.assert_array_equal(file["v_ID"][()], data)
        for name in ("format", "settings_digest", "encoder", "weights_sha256", "stride"):
            assert name in file.attrs


def test_rows_come_with_their_seconds(tmp_path: Path) -> None:
    sampling = Sampling(stride=4)
    write_store(tmp_path / "f.h5", [("v", rows(3), {})], metadata(sampling=sampling))
    with open_store(tmp_path / "f.h5") as store:
        video = store["v"]
        np.testing.assert_allclose(video.start_s, np.array([0, 4, 8]) / 15)
        np.testing.assert_allclose(video.center_s, np.array([8, 12, 16]) / 15)
        np.testing.assert_allclose(video.end_s, np.array([16, 20, 24]) / 15)
        assert (video.n_rows, video.dim, len(store), list(store)) == (3, 4, 1, ["v"])
        np.testing.assert_array_equal(video.read_rows(1, 2), rows(3)[1:2])


def test_a_file_of_another_program_needs_a_sampling_for_its_seconds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "official.h5", "w") as file:
        file.create_dataset("v", data=rows(2), compression="gzip", chunks=True)
    with open_store(tmp_path / "official.h5") as store:
        assert store.metadata.settings == {}
        assert store["v"].n_rows == 2
        with refused(StoreError, path=tmp_path / "official.h5", value="v"):
            store["v"].center_s  # noqa: B018 (it is asked for)
    with open_store(tmp_path / "official.h5", sampling=Sampling(stride=1)) as store:
        np.testing.assert_allclose(store["v"].center_s, np.array([8, 9]) / 15)


def test_seconds_come_from_dataset_attributes_where_the_file_has_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dataset = file.create_dataset("v", data=rows(2))
        dataset.attrs.update(sampling_attributes(Sampling(stride=2)))
    with open_store(tmp_path / "f.h5") as store:
        assert store["v"].sampling == Sampling(stride=2)


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    write_store(tmp_path / "f.h5", [], metadata())
    with open_store(tmp_path / "f.h5") as store:
        assert store.metadata.settings == metadata().settings
        assert store.metadata.settings_digest == metadata().settings_digest
        assert store.metadata.weights == "some-name"
        assert store.metadata.sampling == Sampling()


def test_the_name_of_the_weights_is_no_setting() -> None:
    assert metadata().settings_digest == metadata(weights="other").settings_digest
    assert metadata().settings_digest != metadata(weights_sha256="cd" * 32).settings_digest


def test_differences_are_named_down_to_the_value() -> None:
    other = metadata(precision="bf16", sampling=Sampling(stride=1))
    assert metadata().differences(other) == [
        "precision: fp32, not bf16",
        "sampling.stride: 16, not 1",
    ]
    with refused(StoreMismatchError, path="other.h5") as caught:
        metadata().require_same(other, "this run", "other.h5")
    assert caught.value.data["differences"] == {
        "precision": "fp32, not bf16",
        "sampling.stride": "16, not 1",
    }


@pytest.mark.parametrize("attribute", ["settings", "settings_digest"])
def test_damaged_attributes_are_found(tmp_path: Path, attribute: str) -> None:
    path = tmp_path / "f.h5"
    write_store(path, [("v", rows(1), {})], metadata())
    with h5py.File(path, "a") as file:
        text = plain(file.attrs[attribute])
        file.attrs[attribute] = text[:-2] + ("x" if text[-2] != "x" else "y") + text[-1]
    with refused(StoreError, path=path):
        open_store(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "f.h5", [], metadata())
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file.attrs["format_version"] = 99
    with refused(StoreError, path=tmp_path / "f.h5"):
        open_store(tmp_path / "f.h5")


def test_what_is_no_store_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    for name, kind in (
        ("text.h5", "not-hdf5"), ("cut.h5", "unreadable"), (".", "not-hdf5"), ("none.h5", None)
    ):  # fmt: skip
        with refused(StoreError, path=tmp_path / name, kind=kind):
            open_store(tmp_path / name)


def test_keys_are_those_of_the_root(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_group("group")
    with open_store(tmp_path / "f.h5") as store:
        for key in ("missing", "group/.."):
            with pytest.raises(KeyError):
                store[key]
        assert "missing" not in store


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "/a", "nul\0"])
def test_keys_cannot_leave_the_root(tmp_path: Path, key: str) -> None:
    with refused(UsageError, value=key):
        write_store(tmp_path / "f.h5", [(key, rows(1), {})], metadata())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["v.with.dots", "-v", "ü 漢字", "new\nline", "x" * 300])
def test_odd_keys_are_kept_as_they_are(tmp_path: Path, key: str) -> None:
    write_store(tmp_path / "f.h5", [(key, rows(2), {})], metadata())
    with open_store(tmp_path / "f.h5") as store:
        assert list(store) == [key]
        assert store[key].n_rows == 2


def test_a_key_twice_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_store(path, [("v", rows(1), {})], metadata())
    before = path.read_bytes()
    with refused(UsageError, value="w"):
        write_store(path, [("w", rows(1), {}), ("w", rows(1), {})], metadata())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_long_videos_are_copied_whole(tmp_path: Path) -> None:
    data = rows(40_000, dim=2)
    write_store(tmp_path / "f.h5", [("v", data, {})], metadata())
    with open_store(tmp_path / "f.h5") as store:
        np.testing.assert_array_equal(store["v"].rows, data)


def test_warnings_are_a_list(tmp_path: Path) -> None:
    attributes = {"warnings": json.dumps(["one", "two"])}
    write_store(tmp_path / "f.h5", [("v", rows(1), attributes)], metadata())
    with open_store(tmp_path / "f.h5") as store:
        assert store["v"].warnings == ["one", "two"]


def test_attributes_that_no_run_writes_are_an_alteration_however_rows_are_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("a", data=rows(3))
        dataset.attrs["checksum"] = "ab" * 32
        dataset.attrs["warnings"] = h5py.Empty("f4")
    with open_store(path) as store:
        assert store["a"].verify() is False
        with refused(StoreError, path=path, value="a"):
            store["a"].checked_rows()
        with refused(StoreError, path=path, value="a"):
            list(store["a"].checked_blocks(2))


def test_hdf5_checks_every_byte_and_every_version_since_1_10_reads_it(tmp_path: Path) -> None:
    """What format 2 promises, as HDF5 itself states it."""
    path = tmp_path / "f.h5"
    attributes = {"video": "v.mp4", "warnings": "[]", "duration_s": 1.5}
    write_store(path, [("v", rows(600, dim=1024), attributes)], metadata())
    # Superblock 3 and later structures have checksums; 1.10 introduced it.
    assert path.read_bytes()[8] == 3
    with h5py.File(path, "r") as file:
        dataset = file["v"]
        assert dataset.fletcher32 and dataset.compression is None
        assert dataset.chunks == (16, 1024), "each at most 64 KiB, the last one half full"
        for item in (file, dataset):
            kinds = [item.attrs.get_id(name).get_type() for name in item.attrs]
            texts = [kind for kind in kinds if isinstance(kind, h5py.h5t.TypeStringID)]
            assert texts and not any(kind.is_variable_str() for kind in texts)


def test_a_store_that_another_program_changed_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_store(path, [("v", rows(2), {}), ("w", rows(2), {})], metadata())
    with h5py.File(path, "r+") as file:
        del file["v"]
    with open_store(path) as store:
        assert list(store) == ["w"] and not store.is_indexed
