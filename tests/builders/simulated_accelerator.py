"""A simulated CUDA device on the CPU, on which code that orders its work wrongly gets wrong values.

Operations on a simulated tensor wait in the queue of the thread's current stream. They run when the
host waits for them, or in an order that the simulation chooses among all that streams and events
allow. New memory is full of NaN, and so is freed memory as soon as the stream that it was allocated
on gets there, as torch's caching allocator would hand it out again. Copies from ordinary memory and
questions for a value make the host wait, which is counted.

To torch's own code a simulated tensor is one of the CPU, so that autograd needs no driver; asked in
Python, it says that it is on ``cuda:N``. The meta device gives the shapes when an operation is
queued.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import _disable_current_modes

Order = Literal["late", "random", "side streams first"]
Task = Callable[[], object]
_HERE = Path(__file__).parent


class Happening:
    """A point in a stream's queue that others can wait for."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.happened = stream, False


class Machine:
    """The simulated devices and what is queued on them.

    Attributes:
        order: When queued work runs that nobody waits for: never, at random, or at once unless it
            is on a device's default stream.
        without: Calls that are ignored, as if the code had left them out, by where they stand:
            ``module.function.call``, as :mod:`tests.builders.ordering_calls` lists them.
        counts: ``kernels``, ``freed``, ``copies`` from and to page-locked memory.
        waits: How often the host had to wait, by the reason.
        left_out: How many calls were ignored.
    """

    def __init__(
        self,
        n_devices: int = 1,
        order: Order = "late",
        seed: int = 0,
        without: tuple[str, ...] = (),
    ) -> None:
        self.order, self.without = order, without
        self.left_out = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.here = threading.local()
        self.page_locked: dict[int, torch.Tensor] = {}
        self.streams: list[Stream] = []
        self.default = [Stream(torch.device("cuda", i), machine=self) for i in range(n_devices)]

    # -- threads and streams -------------------------------------------------------------------

    @property
    def index(self) -> int:
        """This thread's current device."""
        return getattr(self.here, "index", 0)

    def index_of(self, device: Any) -> int:
        if device is None:
            return self.index
        if isinstance(device, int):
            return device
        index = torch.device(device).index
        return self.index if index is None else index

    def current(self, device: Any = None) -> Stream:
        """This thread's current stream of a device."""
        index = self.index_of(device)
        chosen: dict[int, Stream] = getattr(self.here, "streams", {})
        return chosen.get(index, self.default[index])

    @contextlib.contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        before = dict(getattr(self.here, "streams", {})), self.index
        self.here.streams = {**before[0], stream.device.index: stream}
        self.here.index = stream.device.index
        try:
            yield
        finally:
            self.here.streams, self.here.index = before

    @contextlib.contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        before = self.index
        self.here.index = self.index_of(device)
        try:
            yield
        finally:
            self.here.index = before

    def leaves_out(self, call: str) -> bool:
        """Whether the product's code does without this call, which it is making."""
        if not self.without:
            return False
        frame = sys._getframe(1)
        while Path(frame.f_code.co_filename).parent == _HERE:
            assert frame.f_back is not None
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}.{call}"
        self.left_out += place in self.without
        return place in self.without

    # -- running ---------------------------------------------------------------------------------

    def queue(self, device: torch.device, task: Task) -> None:
        graph: Graph | None = getattr(self.here, "graph", None)
        if graph is not None:
            graph.tasks.append((device, task))
            return
        self.counts["kernels"] += 1
        self.current(device).queue.append(task)
        if self.order == "random":
            for _ in range(self.random.randrange(4)):
                self.step(self.random.choice(self.streams))
        elif self.order == "side streams first":
            self.run_side_streams()

    def run_side_streams(self) -> None:
        side = [stream for stream in self.streams if stream not in self.default]
        while any(self.step(stream) for stream in side):
            pass

    def step(self, stream: Stream) -> bool:
        """Run one task of a stream; False if it has none, or waits for another stream."""
        if not stream.queue:
            return False
        task = stream.queue[0]
        if isinstance(task, Happening):
            if task.stream is stream:
                task.happened = True
            elif not task.happened:
                return False
            stream.queue.popleft()
            return True
        stream.queue.popleft()
        with _disable_current_modes(), torch.no_grad():
            task()
        return True

    def run_until(self, point: Happening) -> None:
        while not point.happened:
            queue = point.stream.queue
            first = queue[0] if queue else None
            if isinstance(first, Happening) and first.stream is not point.stream:
                self.run_until(first)
            assert self.step(point.stream), "the simulated device waits for nothing"

    def wait(self, device: torch.device, why: str) -> None:
        """Make the host wait for the current stream."""
        self.waits[why] += 1
        self.run_until(self.current(device).point())

    def synchronize(self, device: Any = None) -> None:
        with self.lock:
            for stream in self.streams:
                if device is None or stream.device.index == self.index_of(device):
                    self.run_until(stream.point())

    # -- memory ------------------------------------------------------------------------------------

    def is_page_locked(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.page_locked

    def page_lock(self, tensor: torch.Tensor) -> torch.Tensor:
        """Kept for good: torch's own allocator waits for copies before memory is used again."""
        poison(tensor)
        self.page_locked[tensor.untyped_storage().data_ptr()] = tensor
        return tensor


class Stream:
    """``torch.Stream`` of a simulated device."""

    def __init__(self, device: Any = None, priority: int = 0, machine: Machine | None = None):
        self.machine = machine or running()
        self.device = torch.device("cuda", self.machine.index_of(device))
        self.queue: collections.deque[Task | Happening] = collections.deque()
        self._entered: list[Any] = []
        self.machine.streams.append(self)

    def point(self) -> Happening:
        point = Happening(self)
        self.queue.append(point)
        return point

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.device)
        with self.machine.lock:
            if not self.machine.leaves_out("record_event"):
                event.point = self.point()
        return event

    def wait_event(self, event: Event) -> None:
        with self.machine.lock:
            if event.point is not None and not self.machine.leaves_out("wait_event"):
                self.queue.append(event.point)

    def wait_stream(self, other: Stream) -> None:
        with self.machine.lock:
            if not self.machine.leaves_out("wait_stream"):
                self.queue.append(other.point())

    def synchronize(self) -> None:
        with self.machine.lock:
            if not self.machine.leaves_out("synchronize"):
                self.machine.run_until(self.point())

    def is_capturing(self) -> bool:
        return hasattr(self.machine.here, "graph")

    def __enter__(self) -> Stream:
        self._entered.append(self.machine.on(self))
        self._entered[-1].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(None, None, None)


class Event:
    """``torch.Event`` of a simulated device."""

    def __init__(self, device: Any = None, **options: bool) -> None:
        self.point: Happening | None = None

    def record(self, stream: Stream | None = None) -> None:
        machine = running()
        with machine.lock:
            if not machine.leaves_out("record"):
                self.point = (stream or machine.current()).point()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or running().current()).wait_event(self)

    def query(self) -> bool:
        return self.point is None or self.point.happened

    def synchronize(self) -> None:
        machine = running()
        with machine.lock:
            if self.point is not None and not machine.leaves_out("synchronize"):
                machine.run_until(self.point)


class Graph:
    """``torch.cuda.CUDAGraph``: what was queued while it was captured.

    Its memory is its own. At every replay a tensor is full of NaN where it was allocated and where
    it was freed, as if other steps of the graph had used its memory before and after. What is freed
    after the capture is free once the graph is gone.
    """

    def __init__(self) -> None:
        self.tasks: list[tuple[torch.device, Task]] = []
        self.is_open = True
        self.freed: list[tuple[torch.Tensor, Stream]] = []
        weakref.finalize(self, _free_graph, running(), self.freed)

    def replay(self) -> None:
        machine = running()
        with machine.lock:
            for device, task in self.tasks:
                machine.queue(device, task)

    @staticmethod
    @contextlib.contextmanager
    def capture(graph: Graph, stream: Stream, **options: Any) -> Iterator[None]:
        machine = running()
        machine.synchronize()  # as torch does before it captures
        machine.here.graph = graph
        try:
            with machine.on(stream):
                yield
        finally:
            del machine.here.graph
            graph.is_open = False


class Block:
    """The memory of a tensor and of its views."""

    def __init__(self, machine: Machine, memory: torch.Tensor, home: Stream) -> None:
        self.machine, self.home = machine, home
        self.used_on: list[Stream] = []
        memory = memory.detach()
        graph: Graph | None = getattr(machine.here, "graph", None)
        if graph is None:
            weakref.finalize(self, _free, machine, memory, home, self.used_on)
        else:
            graph.tasks.append((home.device, lambda: poison(memory)))
            weakref.finalize(self, _free_captured, machine, weakref.ref(graph), memory, home)


def _free(machine: Machine, memory: torch.Tensor, home: Stream, used_on: list[Stream]) -> None:
    with machine.lock:
        machine.counts["freed"] += 1
        for stream in used_on:
            home.queue.append(stream.point())
        home.queue.append(lambda: poison(memory))


def _free_captured(
    machine: Machine, graph: weakref.ref[Graph], memory: torch.Tensor, home: Stream
) -> None:
    found = graph()
    if found is None:
        _free_graph(machine, [(memory, home)])
    elif found.is_open:
        found.tasks.append((home.device, lambda: poison(memory)))
    else:
        found.freed.append((memory, home))


def _free_graph(machine: Machine, freed: list[tuple[torch.Tensor, Stream]]) -> None:
    """Give a graph's memory back, for which CUDA waits until no stream can be using it."""
    for memory, home in freed:
        _free(machine, memory, home, [stream for stream in machine.streams if stream is not home])


def poison(memory: torch.Tensor) -> None:
    """Fill the storage of a tensor with values that no right result has."""
    count = memory.untyped_storage().nbytes() // memory.element_size()
    all_of_it = memory.detach().as_strided((count,), (1,), 0)
    all_of_it.fill_(float("nan") if memory.dtype.is_floating_point else 1)


_running: list[Machine] = []


def running() -> Machine:
    """The machine that is installed."""
    return _running[-1]
