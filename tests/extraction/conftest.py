"""Videos of many lengths, and their features as one device of one machine computes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extraction.ray_driver import OPTIONS
from tests.videos import make_mixed_videos
from tspcli.extraction import extract


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed_videos(tmp_path_factory.mktemp("videos"), [90, 40, 300, 12, 70, 250, 55, 150])


@pytest.fixture(scope="session")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "feats.h5"
    extract(videos, out, config=OPTIONS)
    return out
