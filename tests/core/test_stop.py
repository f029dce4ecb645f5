"""A signal that is heard when its run has ended stops nothing."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tspcli.cli.console import err_console
from tspcli.core import stop as stopping
from tspcli.core.stop import Stopper


def wait_for_timers() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=5)


@pytest.mark.parametrize("ended", [False, True])
def test_a_signal_ends_the_process_unless_the_run_has_ended(
    monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(stopping, "HARD_LIMIT_S", 0.01)
    monkeypatch.setattr(os, "_exit", codes.append)
    stopper = Stopper(err_console(), "f.h5")
    if ended:
        stopper.rest()
    stopper.heard(signal.SIGTERM)
    wait_for_timers()
    assert codes == ([] if ended else [128 + signal.SIGTERM])


def test_a_timer_that_runs_out_as_the_run_ends_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(stopping, "HARD_LIMIT_S", 0.05)
    monkeypatch.setattr(os, "_exit", codes.append)
    stopper = Stopper(err_console(), "f.h5")
    stopper.heard(signal.SIGINT)
    stopper.rest()
    time.sleep(0.1)
    stopper._leave()
    assert codes == []
