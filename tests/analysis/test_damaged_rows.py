"""Rows that do not match their checksum are neither drawn nor compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tests.builders.stores import damaged_store, features, store
from tspcli.analysis import view_features
from tspcli.analysis.compare import compare_stores
from tspcli.errors import StoreError
from tspcli.store import open_store


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return damaged_store(tmp_path / "damaged.h5")


def test_damaged_rows_are_neither_drawn_nor_compared(damaged: Path, tmp_path: Path) -> None:
    other = store(tmp_path / "o.h5", {k: features(20, i) for i, k in enumerate(("v_bad", "x"))})
    with open_store(damaged) as opened, open_store(other) as another:
        view_features(opened["v_good"], "x")
        with refused(StoreError, value="v_bad"):
            view_features(opened["v_bad"], "x")
        for pair in ((opened, another), (another, opened)):
            with refused(StoreError, value="v_bad"):
                compare_stores(*pair)
