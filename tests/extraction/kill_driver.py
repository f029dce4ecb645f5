"""Runs an extraction in forked children that die at chosen instants. Started as a program.

Forking from one process that has imported everything makes a restart cheap, so that a test can
afford dozens. At a random time SIGKILL takes the child, one of its decode workers, or all of its
processes; or the child ends itself, without any clean-up, at the n-th call of a system call that
makes things durable.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tspcli.errors import TspError
from tspcli.extraction import ExtractConfig, extract

torch.set_num_threads(1)

OPTIONS: dict[str, Any] = {
    "weights": "random",
    "backbone": "tiny",
    "seed": 1,
    "workers": 2,
    "batch_size": 3,
    "stride": 8,
}


if device := os.environ.get("TSPCLI_TEST_DEVICE"):
    OPTIONS["device"] = device


def start(videos: str, out: str, die_at: tuple[str, int] | None = None) -> int:
    """Fork a child that runs the extraction; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        if die_at is not None:
            _die_at(*die_at)
        report = extract(videos, out, config=ExtractConfig(**OPTIONS))
        code = 3 if report.failed else 0
    except TspError as error:
        print(error, file=sys.stderr)
        code = 4
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _die_at(call: str, count: int) -> None:
    real = getattr(os, call)
    left = [count]

    def dying(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os._exit(99)
        return real(*args, **kwargs)

    setattr(os, call, dying)


def finish(child: int) -> int:
    """Wait for a child; its exit code, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def workers_of(child: int) -> list[int]:
    """The process ids of a child's decode workers."""
    try:
        tasks = list(Path(f"/proc/{child}/task").iterdir())
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def strike(child: int, target: str, rng: random.Random) -> bool:
    """Send SIGKILL to ``main``, a ``worker`` or the ``group``; whether there was anyone."""
    if target == "main":
        os.kill(child, signal.SIGKILL)
    elif target == "group":
        os.killpg(child, signal.SIGKILL)
    else:
        workers = workers_of(child)
        if not workers:
            return False
        try:
            os.kill(rng.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
    return True


def kill_at_random(
    videos: str, folder: Path, kills: int, seed: int, target: str = "main"
) -> dict[str, Any]:
    """Kill and restart until ``kills`` were delivered; keep each finished store.

    A run that loses workers goes on; what it reports as failed the next run does.
    """
    rng = random.Random(seed)
    started = time.monotonic()
    assert finish(start(videos, str(folder / "undisturbed.h5"))) == 0
    length_s = time.monotonic() - started
    delivered = 0
    runs = 1
    while True:
        child = start(videos, str(folder / f"run{runs}.h5"))
        deadline = time.monotonic() + rng.uniform(0, length_s)
        while time.monotonic() < deadline and delivered < kills:
            time.sleep(0.002)
        alive = os.waitpid(child, os.WNOHANG)[0] == 0
        if alive and delivered < kills and target == "worker":
            delivered += strike(child, target, rng)
            code = finish(child)
            # A device that dies while it loads its encoder ends the run.
            assert code in (0, 3, 4 if device else 0), code
            runs += code == 0
        elif alive and delivered < kills:
            strike(child, target, rng)
            code = finish(child)
            # It may have ended between the look and the kill.
            assert code in (0, -signal.SIGKILL), code
            delivered += code != 0
            runs += code == 0
        elif alive:
            assert finish(child) == 0
            break
        else:
            runs += 1
    return {"kills": delivered, "runs": runs, "undisturbed_s": length_s}


def die_at_every(call: str, videos: str, out: Path, most: int) -> dict[str, Any]:
    """Die at the first, second, … call of ``call``, restarting each time, until a run survives."""
    for count in range(1, most):
        code = finish(start(videos, str(out), (call, count)))
        if code == 0:
            return {"deaths": count - 1}
        assert code == 99, code
    raise AssertionError(f"still dying after {most} deaths")


if __name__ == "__main__":
    mode, videos, folder, *rest = sys.argv[1:]
    if mode == "random":
        result = kill_at_random(videos, Path(folder), int(rest[0]), int(rest[1]), *rest[2:])
    else:
        result = die_at_every(mode, videos, Path(folder) / "out.h5", int(rest[0]))
    print(json.dumps(result))
