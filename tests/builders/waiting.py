"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    happened: Callable[[], object],
    *,
    within_s: float = 60.0,
    unless: Callable[[], object] = lambda: None,
) -> None:
    """Return as soon as something has happened.

    Args:
        happened: Asked again and again; whatever is true ends the waiting.
        within_s: After so many seconds the test fails.
        unless: Asked as well; whatever it returns that is true fails the test, with that.
    """
    deadline = time.monotonic() + within_s
    while not happened():
        problem = unless()
        assert not problem, problem
        assert time.monotonic() < deadline, f"it has not happened within {within_s} s"
        time.sleep(0.02)
