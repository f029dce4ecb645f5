"""Stages run once, go on after a kill, and follow their inputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reproduction.stages import (
    STAGES,
    Command,
    ReproductionError,
    Stage,
    StageRecord,
    StageResult,
    StageRunner,
    Tell,
    run_process,
)
from tspcli.core.progress import Reporter

ROOT = Path(__file__).parents[2]


class Watch(Reporter):
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.resumed: list[str] = []
        self.left: list[float | None] = []

    def start(self, task: str, total: int, done: int = 0, about: Any = "") -> None:
        if task == STAGES:
            return
        self.begun.append(task)
        if about.startswith(f"{task} resumes"):
            self.resumed.append(task)

    def result(self, result: Any) -> None:
        assert isinstance(result, StageResult)
        self.left.append(result.left_s)


def writing(text: str) -> Stage:
    def call(folder: Path, tell: Tell) -> None:
        (folder / "out.txt").write_text(text)

    return Stage("first", call=call, outputs=("out.txt",), settings={"text": text})


def copying(root: Path) -> Stage:
    def call(folder: Path, tell: Tell) -> None:
        (folder / "copy.txt").write_text((root / "first" / "out.txt").read_text())

    return Stage("second", call=call, after=("first",), outputs=("copy.txt",))


def run(root: Path, text: str) -> Watch:
    watch = Watch()
    StageRunner(root, [writing(text), copying(root)], reporter=watch).run()
    return watch


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    assert run(tmp_path, "a").begun == ["first", "second"]
    assert run(tmp_path, "a").begun == []


def test_what_depends_on_a_change_is_done_again(tmp_path: Path) -> None:
    run(tmp_path, "a")
    assert run(tmp_path, "b").begun == ["first", "second"]
    assert (tmp_path / "second" / "copy.txt").read_text() == "b"


def test_the_same_result_spares_what_follows(tmp_path: Path) -> None:
    run(tmp_path, "a")
    (tmp_path / "first" / "stage.json").unlink()
    assert run(tmp_path, "a").begun == ["first"]


def test_a_lost_output_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, "a")
    (tmp_path / "first" / "out.txt").unlink()
    assert run(tmp_path, "a").begun == ["first"]


def test_a_stage_that_was_stopped_goes_on_in_its_folder(tmp_path: Path) -> None:
    def call(folder: Path, tell: Tell) -> None:
        if not (folder / "half.txt").exists():
            (folder / "half.txt").write_text("half")
            raise InterruptedError
        (folder / "whole.txt").write_text((folder / "half.txt").read_text())

    def stage(setting: int) -> Stage:
        return Stage("one", call=call, outputs=("whole.txt",), settings={"n": setting})

    with pytest.raises(InterruptedError):
        StageRunner(tmp_path, [stage(1)]).run()
    watch = Watch()
    StageRunner(tmp_path, [stage(1)], reporter=watch).run()
    assert watch.resumed == ["one"]
    record = StageRecord.read(tmp_path / "one")
    assert record is not None and record.sittings == 2 and record.done
    # With other settings nothing of the old folder is left, and so it stops half way again.
    with pytest.raises(InterruptedError):
        StageRunner(tmp_path, [stage(2)]).run()
    assert not (tmp_path / "one" / "whole.txt").exists()


def test_stages_that_do_not_need_each_other_run_together(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def call(folder: Path, tell: Tell) -> None:
        meeting.wait()

    stages = [Stage("left", call=call), Stage("right", call=call)]
    assert set(StageRunner(tmp_path, stages, jobs=2).run()) == {"left", "right"}


def test_a_failure_says_where_and_what(tmp_path: Path) -> None:
    stages = [Stage("bad", commands=(("inspect", str(tmp_path / "none.h5")),)), copying(tmp_path)]
    with pytest.raises(ReproductionError, match="Stage bad: `tsp inspect` ended with code 1") as e:
        StageRunner(tmp_path, stages[:1]).run()
    assert "none.h5" in e.value.message and "log.txt" in str(e.value.remedy)
    record = StageRecord.read(tmp_path / "bad")
    assert record is not None and not record.done


def test_videos_that_cannot_be_decoded_are_noted(tmp_path: Path) -> None:
    def execute(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
        return 3

    stage = Stage("some", commands=(("extract", "x"),))
    records = StageRunner(tmp_path, [stage], execute=execute).run()
    assert records["some"].notes == ["tsp extract: some videos could not be decoded"]


def test_the_time_left_shrinks(tmp_path: Path) -> None:
    def call(folder: Path, tell: Tell) -> None:
        time.sleep(0.05)

    watch = Watch()
    stages = [Stage(f"s{i}", call=call, cost=10) for i in range(4)]
    StageRunner(tmp_path, stages, reporter=watch).run()
    left = [value for value in watch.left if value is not None]
    assert len(left) == 4 and left[-1] == 0 and left[0] > 0


def test_a_command_ends_with_the_run_that_is_killed(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("processes outlive their parents here")
    code = (
        "import sys, pathlib\n"
        "import reproduction.stages as stages\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "sys.executable = str(folder / 'sleeper')\n"
        "stages.run_process(('x',), folder / 'out', folder / 'log', print)\n"
    )
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    sleeper.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


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
    from tspcli import __version__

    assert __version__ in out.read_text()
    assert run_process(("no-such",), out, log, print) == 2
    assert "There is no command 'no-such'" in log.read_text()
