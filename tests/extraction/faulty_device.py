"""The process of a device, made slow; see slow_extract.py."""

from __future__ import annotations

import tspcli.extraction.encode_worker
from tests.extraction.slow_extract import slow_down


def main(socket_fd: int, lifeline_fd: int) -> None:
    slow_down(0.15)
    tspcli.extraction.encode_worker.main(socket_fd, lifeline_fd)
