"""Processes that have imported what is slow to import, for tests that signal or kill them.

A server per test process has imported torch and has no threads yet. Its children start at once and,
other than children of pytest itself, cannot inherit a locked thread pool.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tspcli.pretraining.training_run",
        "tspcli.extraction.session",
        "tspcli.cli.main",
        "tests.pretraining.processes",
    ]
)


class Forked:
    """A function in a process group of its own, what it says on stderr in a file.

    Args:
        function: A function of a module, by whose name the process finds it.
        arguments: For the function.
        log: Takes stdout and stderr.
        environment: What its environment has more than ours.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        target = (function, arguments, str(log), dict(environment or {}))
        self.process = CONTEXT.Process(target=_run, args=target)
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.process.exitcode

    def wait(self, timeout_s: float = 120.0) -> int:
        """The exit code, negative if a signal ended it."""
        self.process.join(timeout_s)
        code = self.process.exitcode
        assert code is not None, f"it still runs after {timeout_s} s: {self.said()}"
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and its group, if they still are there."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.join(60)

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def ended_early(self) -> str | None:
        """What a process that should go on said when it ended; None while it runs."""
        return None if self.poll() is None else self.said() or "it ended"


def tsp(*words: str) -> None:
    """``tsp`` with these arguments, as a program; for :class:`Forked`."""
    from tspcli.cli.main import entry

    sys.argv = ["tsp", *words]
    entry()


def _run(
    function: Callable[..., Any], arguments: tuple[Any, ...], log: str, environment: dict[str, str]
) -> None:
    import torch

    os.setsid()
    # Where the tests run in the background, children ignore it from birth.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    torch.set_num_threads(1)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    function(*arguments)
