"""Every part of the benchmark runs to its end; what it measures is not looked at."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import training, whole
from tests.videos import make_video


def test_training_reads_within_a_short_video(tmp_path: Path) -> None:
    video = tmp_path / "short.mp4"
    make_video(video, fps=30, n_frames=150)
    (tmp_path / "cache").mkdir()
    rows = training.run(
        argparse.Namespace(backbone="tiny", batch=2, steps=1),
        torch.device("cpu"),
        video,
        tmp_path,
    )
    assert {str(row["part"]).partition(":")[0] for row in rows} == {
        "reading",
        "step",
        "reading and step",
    }
    assert all(float(row["clips_per_s"]) > 0 for row in rows)


def test_the_store_is_written_and_read_again() -> None:
    assert all(figure.value and math.isfinite(figure.value) for figure in whole.store(1))


@pytest.mark.slow
def test_the_quick_form_runs_whole(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--markdown", str(table)],
        check=True,
        timeout=1800,
    )
    assert "whole run" in table.read_text(encoding="utf-8")
