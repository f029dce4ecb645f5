"""An export is bounded before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.refusals import refused
from tests.exports.conftest import Export
from tspcli.errors import ExportError, UsageError


class TestBounds:
    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"grid_s": 1e-7}, "--grid-seconds"),
            ({"row_rate": 1e7}, "--row-rate"),
            ({"row_rate": 1e308}, "--row-rate"),
            ({"length": 10**9}, "--length"),
        ],
    )
    def test_rows(
        self, anet_store: Path, export: Export, tmp_path: Path, options: dict, option: str
    ) -> None:
        with refused(ExportError, option=option):
            export(anet_store, "npy", tmp_path / "out", **options)

    @pytest.mark.parametrize("name", ["row_rate", "grid_s"])
    @pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
    def test_numbers(
        self, anet_store: Path, export: Export, tmp_path: Path, name: str, value: float
    ) -> None:
        option = {"row_rate": "--row-rate", "grid_s": "--grid-seconds"}[name]
        with refused(UsageError, option=option):
            export(anet_store, "npy", tmp_path / "out", **{name: value})

    def test_channels(self, anet_store: Path, export: Export, tmp_path: Path) -> None:
        with refused(UsageError, option="--pad-channels", value=10_000_000):
            export(anet_store, "npy", tmp_path / "out", pad_channels=10_000_000)
