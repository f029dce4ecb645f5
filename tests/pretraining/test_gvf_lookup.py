"""Global features: whose they are, which encoder made them, and that a run keeps to them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pretraining.conftest import FAST, QUIET, SmallSet
from tspcli.core.files import file_sha256
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.checkpoints import save_checkpoint
from tspcli.encoders.tsp_model import TspModel
from tspcli.errors import TrainingError
from tspcli.pretraining import pretrain
from tspcli.pretraining.data import RunInputs, load_data
from tspcli.pretraining.gvf_lookup import check_gvf, gvf_rows
from tspcli.pretraining.training_recipe import Recipe
from tspcli.pretraining.training_segments import find_videos
from tspcli.sampling import Sampling
from tspcli.store import StoreMetadata
from tspcli.store.gvf import read_gvf, write_gvf

WITH_GVF = replace(FAST, gvf_pool="max", gvf_weights="tiny-weights")
STOP: dict[str, Any] = {"stop_requested": lambda: True}


def inputs(small_set: SmallSet, gvf: Path | None = None) -> RunInputs:
    return RunInputs(
        (small_set.videos,),
        small_set.train,
        small_set.valid,
        small_set.labels,
        gvf or small_set.gvf,
    )


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_clip_has_the_features_of_its_video(small_set: SmallSet, split: str) -> None:
    data = load_data(inputs(small_set), WITH_GVF)
    vectors = read_gvf(small_set.gvf)
    loader, plan = data.loader(split, QUIET), data.plans[split]
    requests = [plan.request(0, sample) for sample in range(plan.n_samples)]
    batch = loader.collate([loader[request] for request in requests])
    names = [name.split(".mp4")[0] for name in batch.names]
    assert len(set(names)) > 1
    assert batch.gvf is not None
    expected = np.stack([vectors[name] for name in names])
    np.testing.assert_array_equal(batch.gvf.numpy(), expected)


def test_names_with_dots_are_not_cut(small_set: SmallSet) -> None:
    table = load_data(inputs(small_set), WITH_GVF).plans["train"].table
    table = replace(table, filenames=("v.1.mp4", "v.mp4", "w.2.mp4"))
    one, two, three = (np.full(3, value, dtype=np.float32) for value in (1, 2, 3))
    rows = gvf_rows(table, {"v": one, "w": two, "v.mp4": three})
    assert np.isnan(rows[0]).all() and np.isnan(rows[2]).all()
    np.testing.assert_array_equal(rows[1], three)  # the whole name before the stem
    np.testing.assert_array_equal(gvf_rows(table, {"v.1": two, "v": one})[0], two)


# --- provenance -----------------------------------------------------------------------------------


def save(path: Path, backbone: str) -> Path:
    save_checkpoint(path, TspModel(backbone), backbone=backbone)
    return path


def made(
    path: Path, weights: Path | None, backbone: str = "tiny", stride: int = 16, **said: Any
) -> Path:
    encoder = {"backbone": backbone, "weights": "tiny-weights", **said}
    if weights is not None:
        encoder |= {"weights": weights.name, "weights_sha256": file_sha256(weights)}
    metadata = StoreMetadata.build(sampling=Sampling(stride=stride), encoder=encoder)
    vectors = {"a": np.zeros(backbone_spec(backbone).feature_dim, dtype=np.float32)}
    write_gvf(path, vectors, pool="max", metadata=metadata)
    return path


def check(gvf: Path, weights: Path | str, recipe: Recipe = WITH_GVF) -> list[str]:
    return check_gvf(gvf, replace(recipe, gvf_weights=str(weights)), backbone_spec("tiny"))[1]


def test_weights_are_told_by_their_content(tmp_path: Path) -> None:
    """One name, other weights; other names, the same weights; and a run's folder."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "best.pth", "tiny")
    one = tmp_path / "one" / "best.pth"
    gvf = made(tmp_path / "gvf.h5", one)
    renamed = tmp_path / "renamed.pth"
    shutil.copy(one, renamed)
    for weights in (one, one.parent, renamed):
        assert check(gvf, weights) == []
    for weights in (tmp_path / "other", tmp_path / "other" / "best.pth", "tiny"):
        with pytest.raises(TrainingError, match=r"made with best\.pth \(sha256 "):
            check(gvf, weights)


def test_width_is_that_of_the_named_weights(tmp_path: Path) -> None:
    weights = save(tmp_path / "mine.pth", "i3d")
    gvf = made(tmp_path / "gvf.h5", weights, "i3d")
    assert check(gvf, weights) == check(gvf, "") == []
    tiny = save(tmp_path / "tiny.pth", "tiny")
    with pytest.raises(TrainingError, match=r"1024 values; those of tiny have \d+"):
        check(gvf, tiny)


def test_clips_that_overlap_are_worth_a_warning(tmp_path: Path) -> None:
    gvf = made(tmp_path / "gvf.h5", None, stride=8)
    assert "at stride 8" in check(gvf, "tiny-weights")[0]
    assert check(made(tmp_path / "as_official.h5", None), "tiny-weights") == []


# --- a run keeps to its data ----------------------------------------------------------------------


def test_resuming_with_other_features_or_labels_is_refused(
    with_gvf: Callable[..., dict[str, Any]], small_set: SmallSet, tmp_path: Path
) -> None:
    arguments = with_gvf(out=tmp_path / "run")
    pretrain(**arguments, **STOP)
    gvf = read_gvf(small_set.gvf)
    other = tmp_path / "other.h5"
    vectors = {key: vector + 1 for key, vector in gvf.items()}
    write_gvf(other, vectors, pool="max", metadata=gvf.metadata)
    labels = tmp_path / "labels.json"
    labels.write_text('["sway", "circle", "bounce"]')
    for changed in ({"gvf": other}, {"labels": labels}):
        with pytest.raises(TrainingError, match="other segments or videos"):
            pretrain(**{**arguments, **changed}, resume=True)
    assert pretrain(**arguments, resume=True, **STOP).stopped


def test_two_videos_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.mp4").write_bytes(b"x")
    with pytest.raises(TrainingError, match=r"two videos v\.mp4: .*a/v\.mp4 and .*b/v\.mp4"):
        find_videos(["v.mp4"], [tmp_path])
    with pytest.raises(TrainingError, match="two videos"):
        find_videos(["v.mp4"], [tmp_path / "a", tmp_path / "b"])
    assert find_videos(["v.mp4"], [tmp_path / "a", tmp_path / "a"]) == [tmp_path / "a" / "v.mp4"]
