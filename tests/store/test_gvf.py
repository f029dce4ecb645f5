"""Global features: official files load, pooling needs one pass, provenance is kept and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from reproduction.synthetic import SyntheticSpec, render_dataset
from tests.builders.damaged_stores import flip_row
from tests.builders.refusals import refused
from tspcli.cli.gvf import command
from tspcli.core.run_dir import one_writer
from tspcli.errors import StoreError, StoreLockedError, StoreMismatchError, UsageError
from tspcli.extraction import ExtractConfig, extract
from tspcli.extraction.extraction_run import compute_gvf
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata, open_store, write_store
from tspcli.store.gvf import Pool, RunningPool, gvf_from_store, read_gvf, write_gvf
from tspcli.store.hdf5_values import plain_attributes
from tspcli.store.parts import Part, PartsFolder

ROWS = {
    "a": np.random.default_rng(0).normal(size=(40_000, 3)).astype(np.float32),
    "b": np.array([[1, 2, 3], [3, -2, 1]], dtype=np.float32),
}
METADATA = StoreMetadata.build(
    sampling=Sampling(), encoder={"backbone": "tiny", "weights": "w", "weights_sha256": "abc"}
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "feats.h5"
    write_store(path, [(key, rows, {}) for key, rows in ROWS.items()], METADATA)
    return path


def test_official_file_loads_as_it_is(shared_data: Path) -> None:
    path = shared_data / "thumos14_r2plus1d_34-max_gvf.h5"
    official = read_gvf(path)
    assert (len(official), official.dim, official.pool) == (413, 512, None)
    assert official.metadata.settings == {}
    with h5py.File(path) as file:
        key = "video_validation_0000051"
        np.testing.assert_array_equal(official[key], file[key][()])


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pooled_store_has_the_official_layout(store: Path, tmp_path: Path, pool: Pool) -> None:
    out = tmp_path / "gvf.h5"
    made = gvf_from_store(store, out, pool=pool)
    expected = {
        k: (rows.max(0) if pool == "max" else rows.astype(np.float64).mean(0))
        for k, rows in ROWS.items()
    }
    with h5py.File(out) as file:
        assert sorted(file) == ["a", "b"]
        for key, value in expected.items():
            dataset = file[key]
            assert (dataset.shape, dataset.dtype, dataset.compression) == ((3,), "<f4", "gzip")
            np.testing.assert_allclose(dataset[()], value, rtol=1e-6)
        attributes = plain_attributes(file)
        assert (attributes["pool"], attributes["weights"]) == (pool, "w")
    assert made.pool == pool
    assert made.metadata.encoder == "tiny"
    assert made.metadata.sampling == Sampling()


def test_pieces_pool_like_the_whole() -> None:
    rows = ROWS["a"]
    for pool in get_args(Pool):
        whole, pieces = RunningPool(pool), RunningPool(pool)
        whole.add(rows)
        for start in (0, 1, 7):
            pieces.add(rows[start : {0: 1, 1: 7, 7: None}[start]])
        pieces.add(rows[:0])
        assert pieces.n_rows == len(rows)
        np.testing.assert_allclose(pieces.result(), whole.result(), rtol=1e-6)
    with refused(UsageError, value="median"):
        RunningPool("median")  # type: ignore[arg-type]  # what is refused


def test_files_that_are_no_global_features(store: Path, tmp_path: Path) -> None:
    with refused(StoreError, path=store, value="a", kind="shape"):
        read_gvf(store)
    with pytest.raises(StoreError):
        read_gvf(tmp_path / "none.h5")
    path = tmp_path / "bad.h5"
    write_gvf(path, {"x": np.array([1, np.nan])}, pool="max", metadata=METADATA)
    with refused(StoreError, path=path, value="x"):
        read_gvf(path)
    write_gvf(path, {"x": np.zeros(2), "y": np.zeros(3)}, pool="max", metadata=METADATA)
    with refused(StoreError, path=path, kind="widths"):
        read_gvf(path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gvf_videos")
    render_dataset(SyntheticSpec({"train": 3}, duration_s=(4, 6)), folder)
    return folder / "train"


CONFIG = ExtractConfig(weights="random", backbone="tiny", stride=16, device="cpu", workers=1)


def test_one_pass_over_videos_equals_pooling_their_features(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path / "feats.h5", config=CONFIG)
    from_store = gvf_from_store(tmp_path / "feats.h5", tmp_path / "a.h5", pool="mean")
    report = compute_gvf(videos, tmp_path / "b.h5", pool="mean", config=CONFIG)
    assert not report.failed
    direct = read_gvf(tmp_path / "b.h5")
    assert list(direct) == list(from_store) == ["train_0000", "train_0001", "train_0002"]
    for key in direct:
        np.testing.assert_allclose(direct[key], from_store[key], rtol=1e-5, atol=1e-6)
    # What made the rows is known in both.
    assert direct.metadata.settings == from_store.metadata.settings


def test_interrupted_run_resumable_and_other_settings_are_refused(
    videos: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "gvf.h5", tmp_path / "whole.h5"
    compute_gvf(sorted(videos.glob("*.mp4"))[:1], out, config=CONFIG)
    report = compute_gvf(videos, out, config=CONFIG)
    assert [video.status for video in report.videos] == ["kept", "done", "done"]
    compute_gvf(videos, whole, config=CONFIG)
    one, other = read_gvf(out), read_gvf(whole)
    for key in other:
        np.testing.assert_allclose(one[key], other[key], rtol=1e-5, atol=1e-6)
    with refused(StoreMismatchError, differences={"pool": "max, not mean"}):
        compute_gvf(videos, out, pool="mean", config=CONFIG)


def test_damaged_rows_are_not_pooled(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(videos, tmp_path / "feats.h5", config=CONFIG)
    flip_row(tmp_path / "feats.h5", "train_0001")
    with refused(StoreError, value="train_0001"):
        gvf_from_store(tmp_path / "feats.h5", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()

    out, real = tmp_path / "b.h5", PartsFolder.add

    def add_damaged(self: PartsFolder, part: Part) -> None:
        rows = bytearray(part.path.read_bytes())
        rows[2] ^= 1
        part.path.write_bytes(rows)
        real(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(PartsFolder, "add", add_damaged)
        with refused(StoreError, value="train_0000"):
            compute_gvf(sorted(videos.glob("*.mp4"))[:1], out, config=CONFIG)
    assert not out.exists()
    report = compute_gvf(videos, out, config=CONFIG)
    assert {video.status for video in report.videos} == {"done"}


def test_a_file_that_a_run_writes_is_left_to_it(store: Path, tmp_path: Path) -> None:
    with one_writer(tmp_path / "gvf.h5"), pytest.raises(StoreLockedError):
        gvf_from_store(store, tmp_path / "gvf.h5")
    assert not (tmp_path / "gvf.h5").exists()
    gvf_from_store(store, tmp_path / "gvf.h5")


def test_a_changed_video_is_computed_again(videos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "v", tmp_path / "gvf.h5"
    shutil.copytree(videos, folder)
    compute_gvf(folder, out, config=CONFIG)
    before = read_gvf(out)
    size = (folder / "train_0001.mp4").stat().st_size
    assert before.attributes["train_0001"]["source_bytes"] == size
    assert before.attributes["train_0001"]["pooled_rows"] >= 3
    shutil.copy(folder / "train_0000.mp4", folder / "train_0001.mp4")
    report = compute_gvf(folder, out, config=CONFIG)
    assert [video.status for video in report.videos] == ["kept", "done", "kept"]
    assert "train_0001.mp4 has" in report.notes[0]
    after = read_gvf(out)
    np.testing.assert_array_equal(after["train_0001"], after["train_0000"])
    np.testing.assert_array_equal(after["train_0002"], before["train_0002"])
    assert not np.array_equal(after["train_0001"], before["train_0001"])
    again = compute_gvf(folder, out, config=CONFIG)
    assert {video.status for video in again.videos} == {"kept"} and not again.notes


def test_command(videos: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "gvf.h5"
    arguments = ["--videos", str(videos), "--out", str(out), "--weights", "random"]
    arguments += ["--backbone", "tiny", "--device", "cpu", "--workers", "1", "--json"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 0
    assert json.loads(result.stdout)["counts"]["done"] == 3
    assert read_gvf(out).pool == "max"
    result = CliRunner().invoke(
        command,
        ["--features", str(store), "--pool", "mean", "--out", str(out), "--json", "--overwrite"],
        standalone_mode=False,
        catch_exceptions=False,
    )
    assert json.loads(result.stdout) == {"out": str(out), "videos": 2, "dim": 3, "pool": "mean"}
    with open_store(store) as features:
        assert list(features) == list(read_gvf(out))
    result = CliRunner().invoke(command, ["--out", str(out)], standalone_mode=False)
    assert isinstance(result.exception, UsageError)


def test_the_command_says_what_became_of_the_videos(videos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    arguments = ["--videos", str(videos), "--videos", str(bad), "--out", str(tmp_path / "g.h5")]
    arguments += ["--weights", "random", "--backbone", "tiny", "--device", "cpu"]
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 3
    *_, failed, remedy, last = result.stderr.splitlines()
    assert failed.startswith(f"failed: {bad}: ")
    assert "(1 video): " in remedy
    assert last.startswith(f"{tmp_path / 'g.h5'}: 3 done, 1 failed (max). ")
    assert "times real time" in last
    assert last.endswith(f"Report: {tmp_path / 'g.h5.report.json'}")


def error_of(*words: object) -> Exception:
    result = CliRunner().invoke(command, [*map(str, words)], standalone_mode=False)
    assert isinstance(result.exception, Exception), result.output
    return result.exception


def test_a_feature_store_is_never_replaced_by_its_pool(store: Path, tmp_path: Path) -> None:
    before = store.read_bytes()
    link = tmp_path / "link.h5"
    link.symlink_to(store)
    for out in (store, link):
        for more in ((), ("--overwrite",)):
            error = error_of("--features", store, "--out", out, *more)
            assert isinstance(error, UsageError)
            assert f"The output {out} is the input {store}" in str(error)
    other = tmp_path / "other.h5"
    other.write_bytes(before)
    assert "holds no global features" in str(error_of("--features", store, "--out", other))
    assert store.read_bytes() == other.read_bytes() == before
    gvf_from_store(store, other, overwrite=True)
    made = other.read_bytes()
    assert list(gvf_from_store(store, other)) == ["a", "b"]  # the same again
    with refused(StoreMismatchError, differences={"pool": "max, not mean"}):
        gvf_from_store(store, other, pool="mean")
    assert other.read_bytes() == made


def test_several_stores_are_not_pooled_at_once(store: Path, tmp_path: Path) -> None:
    error = error_of("--features", store, "--features", store, "--out", tmp_path / "gvf.h5")
    assert isinstance(error, UsageError)
    assert "--features is given 2 times" in str(error) and "tsp merge" in str(error)
    assert not (tmp_path / "gvf.h5").exists()


@pytest.mark.parametrize(
    "words", [("--weights", "nonsense"), ("--stride", "16"), ("--decoder", "pyav")]
)
def test_options_that_would_do_nothing(store: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    error = error_of("--features", store, "--out", tmp_path / "gvf.h5", *words)
    assert isinstance(error, UsageError)
    assert error.data["conflicts"] == [words[0]]
    assert not (tmp_path / "gvf.h5").exists()
