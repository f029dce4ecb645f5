"""What is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.plotted import SEGMENTS, make_rows, make_store
from tspcli.analysis import PlotData, Thumbnail, view_features
from tspcli.store import open_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    videos = {"v_a": make_rows(60, 2.0), "v_one": make_rows(1, 0.0), "v_dense": make_rows(60, 1)}
    return make_store(tmp_path / "tsp.h5", videos)


@pytest.fixture
def data(store: Path) -> PlotData:
    rng = np.random.default_rng(0)
    frames = [Thumbnail(t, rng.integers(0, 255, (90, 160, 3), np.uint8)) for t in (8.0, 24, 40)]
    with open_store(store) as opened:
        views = [view_features(opened["v_a"], title, SEGMENTS) for title in ("TAC", "TSP & co")]
    return PlotData("v_a </script>", views, SEGMENTS, frames)
