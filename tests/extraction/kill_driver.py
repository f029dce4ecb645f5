"""Runs an extraction in forked children that die at chosen instants. Started as a program.

Forking from one process that has imported everything makes a restart cheap, so that a test can
afford dozens. The child is killed by SIGKILL at a random time, or ends itself, without any
clean-up, at the n-th call of a system call that makes things durable.
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

from tspcli.extraction import ExtractConfig, extract

torch.set_num_threads(1)

OPTIONS: dict[str, Any] = {
    "weights": "random",
    "backbone": "tiny",
    "seed": 1,
    "workers": 2,
    "batch_size": 3,
    "stride": 4,
}


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


def kill_at_random(videos: str, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill and restart until ``kills`` were delivered; keep each finished store."""
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
        if alive and delivered < kills:
            os.kill(child, signal.SIGKILL)
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
        result = kill_at_random(videos, Path(folder), int(rest[0]), int(rest[1]))
    else:
        result = die_at_every(mode, videos, Path(folder) / "out.h5", int(rest[0]))
    print(json.dumps(result))
