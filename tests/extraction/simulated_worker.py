"""The process of a worker that has two simulated GPUs."""

from __future__ import annotations

from tests.builders.simulated_accelerator import Machine
from tests.builders.simulated_torch import simulated
from tspcli.extraction import encode_worker


def main(socket_fd: int, lifeline_fd: int) -> None:
    """Be the process of a worker."""
    with simulated(Machine(n_devices=2, order="random")):
        encode_worker.main(socket_fd, lifeline_fd)
