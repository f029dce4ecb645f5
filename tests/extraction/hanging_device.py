"""The process of a device, of which the first to encode a second batch hangs in it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import tspcli.extraction.encode_worker
from tspcli.extraction import service as pulse
from tspcli.extraction.batch_encoder import BatchEncoder

STUCK_S = 6.0


def main(socket_fd: int, lifeline_fd: int) -> None:
    pulse.STUCK_S, pulse.CLIP_S = STUCK_S, 0.0
    real = BatchEncoder._start
    batches = 0

    def start(self: BatchEncoder[Any], clips: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            try:
                os.close(os.open(os.environ["TSPCLI_TEST_HANG"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return real(self, clips)
            # Without Python's lock, so that the other threads live, as a lost GPU does it.
            while True:
                ctypes.CDLL(None).usleep(1_000_000)
        return real(self, clips)

    BatchEncoder._start = start  # type: ignore[method-assign]  # in this process alone
    tspcli.extraction.encode_worker.main(socket_fd, lifeline_fd)
