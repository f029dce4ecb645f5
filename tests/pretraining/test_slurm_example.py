"""The example of pretraining with Slurm, on programs that stand in for Slurm's and ours."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.builders.waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm-pretrain.sh"
OURS = """#!/bin/bash
trap 'exit 1' TERM  # torch's launcher ends so
printf '%s|' "$@" >> "$CALLS"; echo >> "$CALLS"
[[ $EXIT == term ]] || exit "$EXIT"
while :; do sleep 0.05; done
"""
SLURMS = """#!/bin/bash
printf '%s|' "${0##*/}" "$@" >> "$CALLS"; echo >> "$CALLS"
"""


def start(tmp_path: Path, words: list[str], **environment: str) -> subprocess.Popen[str]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("tsp", OURS), ("sbatch", SLURMS), ("scontrol", SLURMS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    return subprocess.Popen(["bash", str(SCRIPT), *words], env={**paths, **environment}, text=True)


def calls(tmp_path: Path) -> list[list[str]]:
    return [line.split("|")[:-1] for line in (tmp_path / "calls").read_text().splitlines()]


def test_it_submits_itself(tmp_path: Path) -> None:
    process = start(tmp_path, ["4", "--out", "my run"], SBATCH_OPTIONS="--time=1:00")
    assert process.wait(30) == 0
    [submitted] = calls(tmp_path)
    assert {"--gpus=4", "--cpus-per-task=32", "--requeue", "--time=1:00"} <= set(submitted)
    assert submitted[-4:] == [str(SCRIPT), "4", "--out", "my run"]


@pytest.mark.parametrize("status", [0, 1, 3])
def test_it_trains_and_ends_as_the_run_does(tmp_path: Path, status: int) -> None:
    process = start(tmp_path, ["2", "--out", "my run"], SLURM_JOB_ID="7", EXIT=str(status))
    assert process.wait(30) == status
    assert calls(tmp_path) == [["pretrain", "--out", "my run", "--gpus", "2", "--resume"]]


def test_it_is_requeued_after_the_warning(tmp_path: Path) -> None:
    process = start(tmp_path, ["2", "--out", "run"], SLURM_JOB_ID="7", EXIT="term")
    wait_until((tmp_path / "calls").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert calls(tmp_path)[-1] == ["scontrol", "requeue", "7"]
