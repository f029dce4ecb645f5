"""tsp inspect on files of global features."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.stores import DIM, VIDEOS, store
from tspcli.cli.main import cli
from tspcli.store.gvf import gvf_from_store, is_gvf


def inspect(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def gvf(tmp_path: Path) -> Path:
    gvf_from_store(store(tmp_path / "s.h5", VIDEOS), tmp_path / "gvf.h5", pool="mean")
    return tmp_path / "gvf.h5"


def test_ours(gvf: Path) -> None:
    text = inspect(gvf)
    for part in ("global features", "pooled by mean", "r3d_18", "sampling.stride", "v_3"):
        assert part in text
    data = json.loads(inspect(gvf, "--json"))
    assert data["kind"] == "global features" and data["n_videos"] == 4 and data["dim"] == DIM
    assert [video["n_rows"] for video in data["videos"]] == [len(r) for r in VIDEOS.values()]
    assert data["videos"][0]["norm"] == pytest.approx(
        float(np.linalg.norm(VIDEOS["v_0"].mean(0))), rel=1e-5
    )


def test_a_video_and_the_most_similar_ones(gvf: Path) -> None:
    data = json.loads(inspect(gvf, "2.mp4", "--neighbours", "2", "--json"))
    means = {key: rows.mean(0) / np.linalg.norm(rows.mean(0)) for key, rows in VIDEOS.items()}
    cosines = {key: float(means["v_2"] @ value) for key, value in means.items() if key != "v_2"}
    best = sorted(cosines, key=cosines.__getitem__, reverse=True)[:2]
    assert data["key"] == "v_2" and [key for key, _ in data["neighbours"]] == best
    assert best[0] in inspect(gvf, "v_2")


def test_the_official_file(shared_data: Path) -> None:
    text = inspect(shared_data / "thumos14_r2plus1d_34-max_gvf.h5", "--limit", "5")
    assert "413" in text and "width 512, pooled by unknown" in text


def test_stores_are_told_apart(tmp_path: Path, gvf: Path) -> None:
    assert is_gvf(gvf) and not is_gvf(tmp_path / "s.h5")
    foreign = store(tmp_path / "f.h5", VIDEOS, sampling=None)
    assert not is_gvf(foreign) and not is_gvf(tmp_path / "none.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    assert not is_gvf(tmp_path / "empty.h5")
    result = CliRunner().invoke(cli, ["compare", str(gvf), str(gvf)])
    assert "`tsp inspect` shows it" in str(result.exception)
