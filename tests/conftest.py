"""Fixtures that several rooms use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.builders.gpus import gpus  # noqa: F401  # a fixture

# How long an example takes says nothing about it on a machine that others use too.
settings.register_profile("tspcli", deadline=None)
settings.load_profile("tspcli")

# pytest-xdist sets it for its workers, and it asks for output that is cut to a width.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real videos and official tables; skips where there is none."""
    named = os.environ.get("TSPCLI_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set TSPCLI_TEST_DATA to a folder that has it)")
    return folder


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The ffmpeg program; skips where there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("the ffmpeg program is not installed")
    return program


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file system tells of no room, and nothing but it: a write would succeed."""
    real = os.statvfs

    def full(path: os.PathLike[str]) -> os.statvfs_result:
        told = real(path)
        return os.statvfs_result([*told[:3], 0, 0, *told[5:]])

    monkeypatch.setattr(os, "statvfs", full)
