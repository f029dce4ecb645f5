"""Several stores as one: finding a video in them, and the times of rows that the user states."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.builders.refusals import refused
from tests.builders.stores import DIM, TSP, VIDEOS, features, store
from tspcli.cli.main import cli
from tspcli.core.video_names import store_key
from tspcli.errors import AnnotationError, StoreError, StoreMismatchError, UsageError
from tspcli.sampling import Sampling
from tspcli.store import open_store
from tspcli.store.gvf import write_gvf
from tspcli.store.schema import StoreMetadata, sampling_attributes
from tspcli.store.store_set import StoreSet, find_video, given_sampling, require_agreement

ODD = "two\nlines \udcff"
KEYS = ("v_x", "v_one.row", "v_50% off", store_key("v_" + ODD), "v_a%0Ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store(tmp_path / "s.h5", {key: features(3, 0) for key in KEYS})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("v_x", "v_x"),
        ("x", "v_x"),
        ("v_x.mp4", "v_x"),
        ("x.MKV", "v_x"),
        ("v_x.ogm", "v_x"),
        ("videos/v_x.webm", "v_x"),
        ("v_one.row", "v_one.row"),
        ("v_one.row.mp4", "v_one.row"),
        ("50% off", "v_50% off"),
        ("v_" + ODD, KEYS[3]),
        (ODD + ".mp4", KEYS[3]),
        ("v_a%0Ab", "v_a%0Ab"),
        ("v_a\nb", "v_a%0Ab"),
    ],
)
def test_found(path: Path, name: str, key: str) -> None:
    with open_store(path) as opened:
        assert find_video(opened, name).key == key


@pytest.mark.parametrize(
    ("name", "suggested"), [("v_x.part2", "'v_x'"), ("v_one.raw.mp4", "'v_one.row'")]
)
def test_suggested(path: Path, name: str, suggested: str) -> None:
    with open_store(path) as opened, refused(UsageError, path=path, value=name) as caught:
        find_video(opened, name)
    assert suggested in str(caught.value.remedy)


OWN = ("--frame-rate", "15", "--stride", "16", "--clip-length", "16")
OTHER = ("--frame-rate", "15", "--stride", "8", "--clip-length", "16")


def tsp(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)


def telling_datasets(path: Path, sampling: Sampling) -> Path:
    """As an export of released files writes them: each dataset tells, the file does not."""
    with h5py.File(store(path, VIDEOS, sampling=None), "r+") as file:
        for dataset in file.values():
            dataset.attrs.update(sampling_attributes(sampling))
    return path


def test_what_is_not_given_is_as_tsp_has_it() -> None:
    assert given_sampling(None, None, None) is None
    assert given_sampling("15", 16, 16) == given_sampling(None, 16, None) == TSP
    dense = given_sampling(None, 1, None)
    assert dense is not None and (dense.stride, dense.clip_length) == (1, 16)


def test_row_times_that_are_assumed_are_shown(tmp_path: Path) -> None:
    released = store(tmp_path / "released.h5", VIDEOS, sampling=None)
    assumed = tsp("inspect", released, "--stride", "1")
    assert "--frame-rate 15 --stride 1 --clip-length 16" in assumed.stderr
    for complete in (OWN, ()):
        assert "--clip-length" not in tsp("inspect", released, *complete).stderr


@pytest.mark.parametrize("telling", ["file", "datasets"])
@pytest.mark.parametrize("command", ["inspect", "inspect a video", "compare", "plot"])
def test_a_store_that_tells_is_not_contradicted(tmp_path: Path, telling: str, command: str) -> None:
    path = tmp_path / "own.h5"
    store(path, VIDEOS) if telling == "file" else telling_datasets(path, TSP)
    arguments = {
        "inspect": ("inspect", path),
        "inspect a video": ("inspect", path, "v_0"),
        "compare": ("compare", path, path),
        "plot": ("plot", path, "v_0", "-o", tmp_path / "p.html"),
    }[command]
    refused = tsp(*arguments, *OTHER).exception
    assert isinstance(refused, UsageError)
    for part in ("own.h5 says frame rate 15, stride 16", "the command says 15, 8, 16"):
        assert part in refused.message
    agreed = tsp(*arguments, *OWN)
    assert agreed.exception is None and not agreed.return_value


def test_a_store_that_does_not_tell_takes_what_the_other_contradicts(tmp_path: Path) -> None:
    dense = Sampling(stride=8)
    own = store(tmp_path / "own.h5", {"v_0": features(119, 0, sampling=dense)}, sampling=dense)
    released = store(tmp_path / "released.h5", {"v_0": features(60, 0)}, sampling=None)
    result = tsp("compare", own, released, *OWN, "--json")
    assert result.exception is None
    (video,) = json.loads(result.stdout)["videos"]
    assert video["verdict"] == "other times"
    assert "every 0.533 s and one of 1.067 s every 1.067 s" in video["reason"]


def test_rates_that_datasets_hold_rounded(tmp_path: Path) -> None:
    ntsc = Sampling(frame_rate=Fraction(15000, 1001))
    path = telling_datasets(tmp_path / "ntsc.h5", ntsc)
    with open_store(path) as opened:
        require_agreement(opened, given_sampling("15000/1001", 16, 16))
        with refused(UsageError, path=path):
            require_agreement(opened, TSP)


def test_what_a_dataset_tells_goes_before_what_is_given(tmp_path: Path) -> None:
    path = telling_datasets(tmp_path / "d.h5", TSP)
    with open_store(path, sampling=Sampling(stride=8)) as opened:
        assert opened["v_0"].sampling == TSP


def test_global_features_have_no_seconds(tmp_path: Path) -> None:
    path = tmp_path / "gvf.h5"
    write_gvf(path, {"v_0": np.ones(4, "f4")}, pool="max", metadata=StoreMetadata({}, {}))
    refused = tsp("inspect", path, *OWN).exception
    assert isinstance(refused, UsageError) and "no times" in refused.message
    assert tsp("inspect", path).exception is None


def test_localization_is_not_contradicted_either(tmp_path: Path) -> None:
    path = telling_datasets(tmp_path / "own.h5", TSP)
    arguments = ("localize", "train", "-f", path, "-a", "a.csv", "-o", tmp_path / "run")
    assert isinstance(tsp(*arguments, *OTHER).exception, UsageError)
    assert isinstance(tsp(*arguments, *OWN).exception, AnnotationError)


def test_stores_that_fit_are_one_mapping(tmp_path: Path) -> None:
    keys = list(VIDEOS)
    one = store(tmp_path / "1.h5", {key: VIDEOS[key] for key in keys[2:]})
    two = store(tmp_path / "2.h5", {key: VIDEOS[key] for key in keys[:2]})
    with StoreSet([one, two]) as stores:
        assert set(stores) == set(keys) and len(stores) == len(keys)
        assert [video.key for video in stores.videos] == keys
        assert (stores.sampling, stores.dim, stores.is_described) == (TSP, DIM, True)
        np.testing.assert_array_equal(stores[keys[0]].rows, VIDEOS[keys[0]])
        assert stores.metadata == stores.stores[0].metadata
    with pytest.raises(StoreError) as twice:
        StoreSet([one, two, one])
    assert twice.value.data["video"] == keys[2]
    other = store(tmp_path / "3.h5", {"v_9": VIDEOS[keys[0]]}, weights_sha256="11")
    with pytest.raises(StoreMismatchError) as differs:
        StoreSet([one, other])
    assert "weights_sha256" in differs.value.data["differences"]
