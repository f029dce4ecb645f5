"""Decoders that fail in every way: entries from outside the package's table."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

from tspcli.video.decoders import DecoderEntry
from tspcli.video.decoders.pyav_source import PyavSource
from tspcli.video.source import Frame, Wanted

N_GOOD_FRAMES = 100


class FailingSource(PyavSource):
    """PyAV until a frame in the middle, then what :meth:`fail` does."""

    def frames(
        self, start_s: Fraction | None = None, *, wanted: Wanted | None = None
    ) -> Iterator[Frame]:
        for number, frame in enumerate(super().frames(start_s, wanted=wanted)):
            if number == N_GOOD_FRAMES:
                self.fail()
            yield frame

    def fail(self) -> None:
        raise NotImplementedError


def _failing(name: str, how: Callable[[FailingSource], object]) -> type[FailingSource]:
    return type(name, (FailingSource,), {"fail": how, "decoder": name})


def _hang_with_the_lock(source: FailingSource) -> None:
    # PyDLL keeps the interpreter lock, as decord may.
    ctypes.PyDLL(None).sleep(1000)


def _hang_with_threads(source: FailingSource) -> None:
    def deeply(depth: int) -> None:
        if depth:
            deeply(depth - 1)
        time.sleep(1000)

    for _ in range(6):
        threading.Thread(target=deeply, args=(90,), daemon=True).start()
    time.sleep(1000)


def _exhaust_memory(source: FailingSource) -> None:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def _talk_without_end(source: FailingSource) -> None:
    for _ in range(2000):
        os.write(2, b"noise " * 1000)


hanging = _failing("hanging", lambda source: time.sleep(1000))
hanging_with_the_lock = _failing("hanging_with_the_lock", _hang_with_the_lock)
hanging_with_threads = _failing("hanging_with_threads", _hang_with_threads)
crashing = _failing("crashing", lambda source: os.kill(os.getpid(), signal.SIGSEGV))
exiting = _failing("exiting", lambda source: os._exit(3))
raising = _failing("raising", lambda source: [][1])
hungry = _failing("hungry", _exhaust_memory)
talkative = _failing("talkative", _talk_without_end)
stopping = _failing("stopping", lambda source: os.kill(os.getpid(), signal.SIGSTOP))
slow = _failing("slow", lambda source: time.sleep(1.5))


class OnAGpu(PyavSource):
    """PyAV, and a word of the device that it was told to use."""

    decoder = "on_a_gpu"

    def __init__(self, path: str, threads: int = 1, device: str = "the first") -> None:
        super().__init__(path, threads)
        self.warnings.append(f"decoded on {device}")


def _entry(name: str, source: str, module: str = __name__, *, on_gpu: bool = False) -> DecoderEntry:
    return DecoderEntry(name, module, source, package="av", summary="", remedy="", on_gpu=on_gpu)


FAKES = {
    name: _entry(name, name)
    for name in (
        *("hanging", "hanging_with_the_lock", "hanging_with_threads", "crashing", "exiting"),
        *("raising", "hungry", "talkative", "stopping", "slow"),
    )
} | {
    "late": _entry("late", "Source", "tests.video.imported_slowly"),
    "on_a_gpu": _entry("on_a_gpu", "OnAGpu", on_gpu=True),
}
"""The entries by name."""

HARDWARE = DecoderEntry(
    "hardware",
    "tspcli.video.decoders.torchcodec_cuda_source",
    "TorchcodecCudaSource",
    package="av",
    summary="the real source, with a stand-in for torchcodec",
    remedy="",
    on_gpu=True,
    threads=2,
)
