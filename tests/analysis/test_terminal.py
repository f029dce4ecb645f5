"""Features drawn in a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tspcli.analysis import PlotData, view_features
from tspcli.analysis.terminal import change_line, matrix_grid, segment_line
from tspcli.cli.main import cli
from tspcli.errors import UsageError
from tspcli.store import open_store


class TestTerminal:
    def test_grids(self, data: PlotData) -> None:
        view = data.views[0]
        grid = matrix_grid(view, 31, data.scale_of(view))
        assert grid.shape == (30, 31, 3)
        brightness = grid.astype(int).sum(axis=2)
        assert np.diagonal(brightness).mean() > brightness.mean() + 50
        line = change_line(view, 60)
        assert len(line) == 60 and "█" in line and "▁" in line
        # The change lies below the seconds at which it was measured.
        last = replace(view, change=np.arange(len(view.change)) == len(view.change) - 1.0)
        late = change_line(last, 64)
        column = max(i for i, tick in enumerate(late) if tick not in " ▁")
        assert abs(column - 64 * (view.change_s[-1] - view.edges_s[0]) / view.end_s) <= 1
        marks = segment_line(data, view, 64)
        assert marks[20] == 0 and marks[50] == 1 and marks[40] is None

    def test_one_row(self, store: Path) -> None:
        with open_store(store) as opened:
            view = view_features(opened["v_one"], "x")
        assert matrix_grid(view, 8, (0.0, 1.0)).shape == (8, 8, 3)
        assert change_line(view, 5) == "     "

    def test_command_draws_in_a_terminal(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        run = CliRunner().invoke
        result = run(cli, ["plot", str(store), "v_a"], standalone_mode=False)
        assert isinstance(result.exception, UsageError)  # no terminal, no --out
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "60")
        result = run(cli, ["plot", str(store), "a"])
        assert result.exit_code == 0, result.output
        assert result.output.count("▀") >= 50 * 20 and "v_a" in result.output
