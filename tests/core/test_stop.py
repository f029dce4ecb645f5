"""Stopping a run: the first signal asks, the second interrupts, the hard limit ends it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from tspcli.core import stop
from tspcli.core.stop import Stopper, stoppable

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended at the hard limit."""
    codes: list[int] = []
    monkeypatch.setattr(stop, "HARD_LIMIT_S", 0.01)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def wait_for_timers() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=5)


def assert_read(read: threading.Event) -> None:
    assert read.wait(60)


@pytest.mark.parametrize("ended", [False, True])
def test_the_hard_limit_ends_the_process_unless_the_run_has_ended(
    left: list[int], ended: bool
) -> None:
    stopper = Stopper(lambda text: None)
    if ended:
        stopper.rest()
    stopper.heard(signal.SIGTERM)
    wait_for_timers()
    assert left == ([] if ended else [128 + signal.SIGTERM])


def test_a_run_that_ends_in_time_is_left_alone(
    left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "HARD_LIMIT_S", 60.0)
    stopper = Stopper(lambda text: None)
    stopper.heard(signal.SIGINT)
    stopper.rest()
    wait_for_timers()
    assert left == []


def test_last_words_that_nobody_reads_hold_nothing_up(left: list[int]) -> None:
    read = threading.Event()
    stopper = Stopper(lambda text: assert_read(read))
    stopper.heard(signal.SIGTERM)
    wait_for_timers()
    read.set()
    assert left == [128 + signal.SIGTERM]


@pytest.mark.parametrize("hard_limit", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts_a_run_that_does_not_ask_yet(
    number: signal.Signals, hard_limit: bool
) -> None:
    with (
        stoppable(lambda text: None, hard_limit=hard_limit) as stopper,
        pytest.raises(KeyboardInterrupt),
    ):
        os.kill(os.getpid(), number)
    assert stopper.exit_code == 128 + number


@pytest.mark.parametrize("hard_limit", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, hard_limit: bool
) -> None:
    with stoppable(lambda text: None, hard_limit=hard_limit) as stopper:
        assert not stopper.requested()
        os.kill(os.getpid(), number)
        assert stopper.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert stopper.exit_code == 128 + number


def test_handlers_come_back() -> None:
    handlers: list[Callable[..., object] | int | None] = [signal.getsignal(n) for n in NUMBERS]
    with stoppable(lambda text: None):
        assert [signal.getsignal(n) for n in NUMBERS] != handlers
    assert [signal.getsignal(n) for n in NUMBERS] == handlers


def test_something_else_may_ask() -> None:
    stopper = Stopper(lambda text: None, asked_by=lambda: True)
    assert stopper.requested()


def test_a_launcher_may_pass_on_what_everybody_got() -> None:
    stopper = Stopper(lambda text: None, is_launched=True)
    assert not stopper.requested()
    for _ in range(3):
        stopper.interrupt(signal.SIGTERM, None)
    assert stopper.requested() and stopper.exit_code == 143
    with pytest.raises(KeyboardInterrupt):
        stopper.interrupt(signal.SIGINT, None)


def test_a_launched_run_that_has_not_begun_is_interrupted_once() -> None:
    stopper = Stopper(lambda text: None, is_launched=True)
    with pytest.raises(KeyboardInterrupt):
        stopper.interrupt(signal.SIGTERM, None)
    stopper.interrupt(signal.SIGTERM, None)
