"""SIGTERM to every process of a run, as `timeout` and schedulers send it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.builders.forked import Forked, tsp
from tests.builders.waiting import wait_until
from tests.pretraining.conftest import SmallSet
from tests.pretraining.test_pretrain import command_line

pytestmark = pytest.mark.faults
Start = Callable[..., Forked]


@pytest.fixture
def start(small_set: SmallSet, tmp_path: Path) -> Iterator[Start]:
    """Starts ``tsp pretrain`` in a process group of its own."""
    started: list[Forked] = []

    def begin(*options: str) -> Forked:
        words = command_line(small_set, tmp_path / "run", "--epochs", "500")
        process = Forked(tsp, "pretrain", *map(str, words), *options, log=tmp_path / "said")
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()


def terminated(process: Forked, others: Sequence[int] = ()) -> str:
    """Signal the group; what the run said until it ended with all its processes.

    Args:
        process: The run.
        others: Its processes outside the group, which are signalled first.
    """
    for other in others:
        os.kill(other, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    code, said = process.wait(90), process.said()
    assert code == 143, said
    assert "Traceback" not in said and "bug in tspcli" not in said, said
    wait_until(lambda: not outlived(process), within_s=20)
    return said


def outlived(process: Forked) -> bool:
    """Whether a process of the run is left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def loaders(process: Forked) -> int:
    """Loader processes that have been started, ready or not."""
    count = 0
    for child in children(process.pid):
        with suppress(OSError):
            count += b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    return count


def test_in_the_middle_of_training(start: Start, tmp_path: Path) -> None:
    last = tmp_path / "run" / "last.pth"
    process = start("--workers", "1", "--checkpoint-every-steps", "3")
    wait_until(last.exists, within_s=120, unless=process.ended_early)
    assert "--resume" in terminated(process)
    stored = torch.load(last, weights_only=False)["run"]["state"]
    assert (stored["epoch"], stored["step"]) > (0, 0)


def test_before_the_first_step(start: Start, tmp_path: Path) -> None:
    """While the loader processes start: nothing is stored yet."""
    process = start("--workers", "1")
    wait_until(lambda: loaders(process) > 0, within_s=120, unless=process.ended_early)
    terminated(process)
    assert not (tmp_path / "run" / "last.pth").exists()


@pytest.mark.parametrize("signalled", ["launcher", "everybody"])
def test_several_processes(start: Start, tmp_path: Path, signalled: str) -> None:
    """torch's launcher has the others in sessions of their own, and passes the signal on."""
    last = tmp_path / "run" / "last.pth"
    process = start("--gpus", "2", "--workers", "0", "--checkpoint-every-steps", "3")
    wait_until(last.exists, within_s=120, unless=process.ended_early)
    others = children(process.pid)
    assert len(others) == 2
    said = terminated(process, others if signalled == "everybody" else ())
    assert "--resume" in said, said
    assert not any(Path(f"/proc/{other}").exists() for other in others)
    stored = torch.load(last, weights_only=False)["run"]
    assert (stored["state"]["epoch"], stored["state"]["step"]) > (0, 0)
    assert stored["world_size"] == 2
