"""Workers that something befalls, as the process of one or as threads of this one.

What befalls them is told by ``TSPCLI_TEST_FAULT``: a kind, and the file that those that happen only
once leave behind.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch

from tspcli.errors import StoreError
from tspcli.extraction import encode_worker
from tspcli.extraction.task import Task
from tspcli.video import VideoFile

VARIABLE = "TSPCLI_TEST_FAULT"
STUCK_S = 6.0
KILLER = "v2"
"""The video that kills every worker that begins it."""
ONCE = ("die", "stop", "stick")
_real_open_sink = Task.open_sink
is_child = False
released = threading.Event()
"""Lets the threads that were stuck end."""


def open_sink(self: Task, writer: Any, file: VideoFile) -> Any:
    """Begin a video, if nothing befalls the worker."""
    kind, _, flag = os.environ.get(VARIABLE, "").partition(" ")
    if kind in ONCE:
        try:
            Path(flag).touch(exist_ok=False)
        except FileExistsError:
            kind = ""
    if kind in ("die", "die-always") or (kind == "kill" and file.key == KILLER):
        if not is_child:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop" and is_child:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "stick":
        released.wait()
    elif kind == "disk":
        raise StoreError("The disk is full.", path="disk")
    elif kind == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    elif kind == "slow":
        time.sleep(0.2)
    return _real_open_sink(self, writer, file)


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Be the process of a worker."""
    global is_child
    is_child = True
    Task.open_sink = open_sink  # type: ignore[method-assign]  # in this process alone
    encode_worker.STUCK_S, encode_worker.CLIP_S = STUCK_S, 0.0
    encode_worker.main(socket_fd, lifeline_fd)
