"""Running a function in fresh processes: to kill them, or to let several train together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from tests.builders.forked import CONTEXT


def _call(
    function: Callable[..., None],
    environment: Mapping[str, str],
    arguments: tuple[Any, ...],
    named: Mapping[str, Any],
) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments, **named)


def start(
    function: Callable[..., None],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    **named: Any,
) -> Any:
    """Start a function of a test module in a fresh process."""
    process = CONTEXT.Process(target=_call, args=(function, environment or {}, arguments, named))
    process.start()
    return process


def run(function: Callable[..., None], *arguments: Any, **named: Any) -> int:
    """Run a function in a fresh process; its exit code, negative if a signal ended it."""
    process = start(function, *arguments, **named)
    process.join(timeout=300)
    assert process.exitcode is not None, "the process hangs"
    return int(process.exitcode)


def run_together(
    world_size: int,
    function: Callable[..., None],
    *arguments: Any,
    slurm: bool = False,
    **named: Any,
) -> list[int]:
    """Run a function in several processes that find each other as a launcher would have it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = []
    for rank in range(world_size):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if slurm:
            environment |= {
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "SLURM_STEP_NUM_TASKS": str(world_size),
                "SLURM_STEP_TASKS_PER_NODE": str(world_size),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_JOB_ID": "17",
            }
        else:
            environment |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
            }
        together.append(start(function, *arguments, environment=environment, **named))
    for process in together:
        process.join(timeout=300)
    codes = [process.exitcode for process in together]
    for process in together:
        if process.exitcode is None:
            process.kill()
    return codes
