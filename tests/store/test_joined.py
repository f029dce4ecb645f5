"""Stores of several encoders, side by side."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.builders.refusals import refused
from tests.builders.stores import DIM, TSP, VIDEOS, damaged_store, features, store
from tspcli.errors import StoreError, StoreMismatchError
from tspcli.exports import ExportRequest, export_features
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.store.store_set import StoreSet

FLOW = {key: rows[:, :24] + 1 for key, rows in VIDEOS.items()}
KEYS = list(VIDEOS)


@pytest.fixture
def rgb(tmp_path: Path) -> Path:
    return store(tmp_path / "rgb.h5", VIDEOS, checksums=True)


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    return store(tmp_path / "flow.h5", FLOW, checksums=True, backbone="i3d", weights_sha256="22")


def test_channels_stand_side_by_side(rgb: Path, flow: Path) -> None:
    with StoreSet([rgb], concat=[flow, rgb]) as both:
        assert (list(both), both.dim) == (KEYS, 2 * DIM + 24)
        for key in KEYS:
            joined = np.concatenate([VIDEOS[key], FLOW[key], VIDEOS[key]], axis=1)
            video = both[key]
            np.testing.assert_array_equal(video.checked_rows(), joined)
            np.testing.assert_array_equal(video.rows, joined)
            np.testing.assert_array_equal(video.read_rows(3, 500), joined[3:])
            np.testing.assert_array_equal(np.concatenate(list(video.checked_blocks(7))), joined)
            assert (video.n_rows, video.dim, video.verify()) == (*joined.shape, True)
            np.testing.assert_array_equal(video.center_s, both.stores[0][key].center_s)
        assert both.metadata.encoder == "r3d_18 + i3d + r3d_18" and both.is_described
        assert both.metadata.sampling == both.sampling == TSP
        assert [video.duration_s for video in both.videos] == [
            both.stores[0][key].duration_s for key in KEYS
        ]


def test_names_meet_with_and_without_v_and_what_is_left_out_is_noted(
    rgb: Path, tmp_path: Path
) -> None:
    bare = {key.removeprefix("v_"): rows for key, rows in FLOW.items()}
    more = store(tmp_path / "more.h5", {**bare, "other": features(5, 9)[:, :24]})
    with StoreSet([rgb], concat=[more]) as both:
        assert list(both) == KEYS
        np.testing.assert_array_equal(both[KEYS[0]].rows[:, DIM:], FLOW[KEYS[0]])
        assert any("other" in note for note in both.notes)


@pytest.mark.parametrize("shorter", [0, 1])
def test_a_last_row_that_one_encoder_lacks_is_left_out_and_noted(
    tmp_path: Path, shorter: int
) -> None:
    versions = [dict(VIDEOS), dict(FLOW)]
    versions[shorter][KEYS[1]] = versions[shorter][KEYS[1]][:-1]
    paths = [store(tmp_path / f"{n}.h5", videos) for n, videos in enumerate(versions)]
    with StoreSet(paths[:1], concat=paths[1:]) as both:
        n_rows = len(VIDEOS[KEYS[1]]) - 1
        assert both[KEYS[1]].n_rows == n_rows
        assert both[KEYS[1]].checked_rows().shape == (n_rows, DIM + 24)
        assert sum(len(block) for block in both[KEYS[1]].checked_blocks(n_rows)) == n_rows
        assert any(KEYS[1] in note for note in both.notes)


def test_what_cannot_be_joined_is_refused(rgb: Path, tmp_path: Path) -> None:
    def further(**changes: object) -> Path:
        return store(tmp_path / "further.h5", {**FLOW, **changes})  # type: ignore[dict-item]

    for other in (
        store(tmp_path / "fewer.h5", dict(list(FLOW.items())[1:])),
        further(**{KEYS[0]: FLOW[KEYS[0]][:-2]}),
        store(tmp_path / "dense.h5", FLOW, sampling=Sampling(stride=1)),
        store(tmp_path / "longer.h5", FLOW, sampling=Sampling(clip_length=32)),
        store(tmp_path / "untold.h5", FLOW, sampling=None),
    ):
        with refused(StoreMismatchError, path=other, video=KEYS[0]):
            StoreSet([rgb], concat=[other])


def test_files_without_times_are_joined_at_the_given_ones(tmp_path: Path, rgb: Path) -> None:
    untold = store(tmp_path / "untold.h5", FLOW, sampling=None)
    also = store(tmp_path / "also.h5", VIDEOS, sampling=None)
    for first in (rgb, also):
        with StoreSet([first], concat=[untold], sampling=TSP) as both:
            assert both.sampling == TSP and not both.is_described
            assert both[KEYS[0]].dim == DIM + 24
    with StoreSet([also], concat=[untold]) as both:
        assert both[KEYS[0]].sampling is None


def test_damage_to_either_is_found(tmp_path: Path) -> None:
    damaged = damaged_store(tmp_path / "damaged.h5")
    with open_store(damaged) as opened:
        rows = {key: opened[key].rows for key in opened}
    good = store(tmp_path / "good.h5", rows, checksums=True)
    for pair in ((good, damaged), (damaged, good)):
        with StoreSet(pair[:1], concat=pair[1:]) as both:
            assert both["v_good"].checked_rows().shape[1] == 2 * DIM
            assert both["v_bad"].verify() is False
            with pytest.raises(StoreError):
                both["v_bad"].checked_rows()


@pytest.mark.parametrize("name", ["both.h5", "both"])
def test_the_export_of_both_is_a_store_with_times(
    rgb: Path, flow: Path, tmp_path: Path, name: str
) -> None:
    target = "official" if name.endswith(".h5") else "npy"
    request = ExportRequest((rgb,), target, tmp_path / name, concat=(flow,))
    report = export_features(request)
    assert report.width == DIM + 24
    assert any(str(flow) in note for note in report.notes)
    if target == "npy":
        rows = np.load(tmp_path / name / f"{KEYS[2]}.npy")
    else:
        with open_store(tmp_path / name) as written:
            assert written.metadata.encoder == "r3d_18 + i3d"
            assert written[KEYS[2]].sampling == TSP
            rows = written[KEYS[2]].rows
    np.testing.assert_array_equal(rows, np.concatenate([VIDEOS[KEYS[2]], FLOW[KEYS[2]]], axis=1))


def test_released_files_are_joined_too(tmp_path: Path) -> None:
    for name, videos in (("a.h5", VIDEOS), ("b.h5", FLOW)):
        with h5py.File(tmp_path / name, "w") as file:
            for key, rows in videos.items():
                file.create_dataset(key, data=rows, compression="gzip")
    with StoreSet([tmp_path / "a.h5"], concat=[tmp_path / "b.h5"]) as both:
        assert both.dim == DIM + 24 and both[KEYS[3]].verify() is None
