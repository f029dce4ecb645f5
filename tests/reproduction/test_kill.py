"""A killed experiment resumes, and comes to the figures of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduction.run import reproduce
from reproduction.stages import STAGES, StageRecord
from tests.reproduction.running import MINIATURE
from tspcli.core.progress import Reporter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.faults]

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from tests.reproduction.running import MINIATURE
from reproduction.run import reproduce
if __name__ == "__main__":
    reproduce(MINIATURE, sys.argv[1])
"""


class Watch(Reporter):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self, task: str, total: int, done: int = 0, about: object = "") -> None:
        if task != STAGES:
            self.begun.append(task)


def test_killed_twice(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for stage in ("p0.9/seed3/gvf", "p0.9/seed3/tsp-none.localized"):
        kill_when(out, stage)
    done = {p.parent for p in out.rglob("stage.json") if is_done(p.parent)}
    watch = Watch()
    reproduce(MINIATURE, out, reporter=watch)
    assert not {str(folder.relative_to(out)) for folder in done} & set(watch.begun)
    plain = tmp_path / "plain"
    reproduce(MINIATURE, plain)
    one, two = (json.loads((f / "report" / "summary.json").read_text()) for f in (out, plain))
    assert one["figures"] == two["figures"]


def kill_when(out: Path, stage: str) -> None:
    """Start the experiment; kill it when a stage has begun."""
    script = out.with_suffix(".py")
    script.write_text(CODE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script), str(out)], env=environment)
    deadline = time.monotonic() + 600
    while not (out / stage / "stage.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.wait()


def is_done(folder: Path) -> bool:
    record = StageRecord.read(folder)
    return record is not None and record.done
