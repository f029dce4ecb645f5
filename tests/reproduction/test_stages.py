"""Stages run once, go on after a kill, and follow their inputs."""

from __future__ import annotations

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
)
from tspcli.core.progress import Reporter


def no_command(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
    raise AssertionError(command)


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
    StageRunner(root, [writing(text), copying(root)], no_command, reporter=watch).run()
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
        StageRunner(tmp_path, [stage(1)], no_command).run()
    watch = Watch()
    StageRunner(tmp_path, [stage(1)], no_command, reporter=watch).run()
    assert watch.resumed == ["one"]
    record = StageRecord.read(tmp_path / "one")
    assert record is not None and record.sittings == 2 and record.done
    # With other settings nothing of the old folder is left, and so it stops half way again.
    with pytest.raises(InterruptedError):
        StageRunner(tmp_path, [stage(2)], no_command).run()
    assert not (tmp_path / "one" / "whole.txt").exists()


def test_stages_that_do_not_need_each_other_run_together(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def call(folder: Path, tell: Tell) -> None:
        meeting.wait()

    stages = [Stage("left", call=call), Stage("right", call=call)]
    assert set(StageRunner(tmp_path, stages, no_command, jobs=2).run()) == {"left", "right"}


def test_a_failure_says_where_and_what(tmp_path: Path) -> None:
    def execute(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
        log.write_text("none.h5 is missing\n")
        return 1

    stage = Stage("bad", commands=(("inspect", "none.h5"),))
    with pytest.raises(ReproductionError, match="Stage bad: `tsp inspect` ended with code 1") as e:
        StageRunner(tmp_path, [stage], execute).run()
    assert "none.h5" in e.value.message and "log.txt" in str(e.value.remedy)
    record = StageRecord.read(tmp_path / "bad")
    assert record is not None and not record.done


def test_videos_that_cannot_be_decoded_are_noted(tmp_path: Path) -> None:
    def execute(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
        return 3

    stage = Stage("some", commands=(("extract", "x"),))
    records = StageRunner(tmp_path, [stage], execute).run()
    assert records["some"].notes == ["tsp extract: some videos could not be decoded"]


def test_the_time_left_shrinks(tmp_path: Path) -> None:
    def call(folder: Path, tell: Tell) -> None:
        time.sleep(0.05)

    watch = Watch()
    stages = [Stage(f"s{i}", call=call, cost=10) for i in range(4)]
    StageRunner(tmp_path, stages, no_command, reporter=watch).run()
    left = [value for value in watch.left if value is not None]
    assert len(left) == 4 and left[-1] == 0 and left[0] > 0
