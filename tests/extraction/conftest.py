"""An encoder, a few videos, and more of many lengths with what one device makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.videos import make_mixed_videos, make_video
from tests.extraction.ray_driver import OPTIONS
from tspcli.encoders import Encoder, load_encoder
from tspcli.extraction import extract


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed_videos(tmp_path_factory.mktemp("videos"), [90, 40, 300, 12, 70, 250, 55, 150])


@pytest.fixture(scope="session")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "feats.h5"
    extract(videos, out, config=OPTIONS)
    return out


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed_videos(tmp_path_factory.mktemp("few"), [90, 40, 150, 12, 70])


@pytest.fixture(scope="session")
def few_expected(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("few-expected") / "f.h5"
    extract(few, out, config=OPTIONS)
    return out


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("random", backbone="tiny", seed=1, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name, fps, n_frames in [("a", 30, 100), ("b", 25, 80), ("short", 30, 12)]:
        make_video(folder / f"{name}.mp4", fps=fps, n_frames=n_frames, width=96, height=64)
    return folder
