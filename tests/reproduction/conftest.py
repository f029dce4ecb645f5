"""One whole experiment in miniature, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproduction.run import ReproductionReport, reproduce
from tests.reproduction.running import MINIATURE


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReproductionReport]:
    """The experiment's folder and its outcome."""
    root = tmp_path_factory.mktemp("experiment")
    return root, reproduce(MINIATURE, root)
