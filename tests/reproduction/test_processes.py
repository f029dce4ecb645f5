"""Commands run in processes that end with the run, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reproduction.processes import run_process
from tspcli import __version__

ROOT = Path(__file__).parents[2]

SLEEPER = """
import os, pathlib, time
def run(arguments):
    pathlib.Path(arguments[0]).write_text(str(os.getpid()))
    time.sleep(300)
"""
RUN = """
import pathlib, sys
from reproduction.processes import run_process
folder = pathlib.Path(sys.argv[1])
run_process(("-m", "sleeper", str(folder / "pid")), folder / "out", folder / "log", print)
"""


def test_a_command_ends_with_the_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    command = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    while is_running(command) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(command)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_process_runs_tsp_of_this_very_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tspcli.py").write_text("raise SystemExit('another program')")
    monkeypatch.chdir(tmp_path)
    out, log = tmp_path / "out", tmp_path / "log"
    assert run_process(("--version",), out, log, print) == 0
    assert __version__ in out.read_text()
    assert run_process(("no-such",), out, log, print) == 2
    assert "There is no command 'no-such'" in log.read_text()
