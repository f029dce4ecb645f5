"""Commands of ``tsp`` in processes forked from one that has imported torch already.

A cell of the experiment runs some forty commands; importing torch for each would take longer than
several of its trainings.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from reproduction.stages import Command, Tell

_CONTEXT = multiprocessing.get_context("forkserver")
# What the commands import, late ones included; what is not installed is passed over.
_CONTEXT.set_forkserver_preload(
    [
        "tspcli.pretraining.training_run",
        "tspcli.localization.training",
        "tspcli.extraction",
        "tspcli.cli.displays",
        "torch._dynamo",
        "torch.utils.tensorboard",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "av",
    ]
)
_STARTING = threading.Lock()
_RUNNING: set[BaseProcess] = set()


def run_process(command: Command, stdout: Path, log: Path, tell: Tell) -> int:
    """Run a command in a process that ends when this one does; pass on the log's latest line."""
    process = _CONTEXT.Process(target=_run, args=(command, stdout, log))
    with _STARTING, _without_current_folder():
        process.start()
    _RUNNING.add(process)
    try:
        last = ""
        while process.is_alive():
            process.join(2.0)
            line = _last_line(log)
            if line and line != last:
                last = line
                tell(line)
    finally:
        _RUNNING.discard(process)
    assert process.exitcode is not None
    return process.exitcode


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """What forks imports first, and must not take a file of the current folder for a module."""
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def stop_processes() -> None:
    """End all commands that run, with what they started."""
    for process in list(_RUNNING):
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _run(command: Command, stdout: Path, log: Path) -> NoReturn:
    os.setsid()
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    for descriptor, path, mode in ((1, stdout, os.O_TRUNC), (2, log, os.O_APPEND)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | mode, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    if command[0] == "-m":
        importlib.import_module(command[1]).run(command[2:])
        sys.exit()
    from tspcli.cli.main import main

    main(command)


def _end_with_the_run() -> None:
    """Or a run that is killed would leave commands behind that hold locks on their outputs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 2000))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
