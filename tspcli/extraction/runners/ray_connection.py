"""Reaching a Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tspcli.errors import DependencyError, TspError

_LOCAL_OBJECTS_BYTES = 128 << 20


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one of this machine alone if there is none.

    Args:
        address: The cluster; None takes what ``RAY_ADDRESS`` names, or the one that this machine
            belongs to.

    Returns:
        Whether a connection was made here, which the caller then has to end.

    Raises:
        DependencyError: If Ray is not installed.
        TspError: If the named cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f"Ray is not installed ({error}).", remedy="pip install 'tspcli[ray]'"
        ) from error
    if ray.is_initialized():
        return False
    named = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with _signal_handlers_kept():
        try:
            ray.init(address=named or "auto", **options)
        except ConnectionError as error:
            if named:
                raise TspError(
                    f"There is no Ray cluster at {named} ({error}).",
                    remedy="Check the address; `ray status` tells whether it lives.",
                ) from error
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Frames travel beside Ray, so its own store of objects can be small.
            ray.init(include_dashboard=False, object_store_memory=_LOCAL_OBJECTS_BYTES, **options)
    return True


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)
