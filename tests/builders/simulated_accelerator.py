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
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

Order = Literal["late", "random", "side streams first"]
Task = Callable[[], object]
VIEWS = {"_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand"}
VIEWS |= {"permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"}
VIEWS |= {"unbind", "unfold", "unsqueeze", "view"}
ASKS_FOR_A_VALUE = {"_local_scalar_dense", "_unique2", "equal", "masked_select", "nonzero"}


class Happening:
    """A point in a stream's queue that others can wait for."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.happened = stream, False


class Machine:
    """The simulated devices and what is queued on them.

    Attributes:
        order: When queued work runs that nobody waits for: never, at random, or at once unless it
            is on a device's default stream.
        without: Calls that are ignored, as if the code had left them out: ``wait_event``,
            ``record_stream``, ``synchronize``.
        counts: ``kernels``, ``freed``, ``copies`` from and to page-locked memory.
        waits: How often the host had to wait, by the reason.
    """

    def __init__(
        self,
        n_devices: int = 1,
        order: Order = "late",
        seed: int = 0,
        without: tuple[str, ...] = (),
    ) -> None:
        self.order, self.without = order, without
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

    def allocate(self, memory: torch.Tensor, device: torch.device) -> Simulated:
        poison(memory)
        return Simulated(memory, Block(self, memory, self.current(device)))

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
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        with self.machine.lock:
            if event.point is not None and "wait_event" not in self.machine.without:
                self.queue.append(event.point)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def synchronize(self) -> None:
        self.record_event().synchronize()

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
            self.point = (stream or machine.current()).point()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or running().current()).wait_event(self)

    def query(self) -> bool:
        return self.point is None or self.point.happened

    def synchronize(self) -> None:
        machine = running()
        with machine.lock:
            if self.point is not None and "synchronize" not in machine.without:
                machine.run_until(self.point)


class Graph:
    """``torch.cuda.CUDAGraph``: what was queued while it was captured."""

    def __init__(self) -> None:
        self.tasks: list[tuple[torch.device, Task]] = []

    def replay(self) -> None:
        machine = running()
        with machine.lock:
            for device, task in self.tasks:
                machine.queue(device, task)

    @staticmethod
    @contextlib.contextmanager
    def capture(graph: Graph, stream: Stream, **options: Any) -> Iterator[None]:
        machine = running()
        machine.here.graph = graph
        try:
            with machine.on(stream):
                yield
        finally:
            del machine.here.graph


class Block:
    """The memory of a tensor and of its views."""

    def __init__(self, machine: Machine, memory: torch.Tensor, home: Stream) -> None:
        self.machine, self.home = machine, home
        self.used_on: list[Stream] = []
        weakref.finalize(self, _free, machine, memory.detach(), home, self.used_on)


def _free(machine: Machine, memory: torch.Tensor, home: Stream, used_on: list[Stream]) -> None:
    with machine.lock:
        machine.counts["freed"] += 1
        for stream in used_on:
            home.queue.append(stream.point())
        home.queue.append(lambda: poison(memory))


def poison(memory: torch.Tensor) -> None:
    """Fill the storage of a tensor with values that no right result has."""
    count = memory.untyped_storage().nbytes() // memory.element_size()
    all_of_it = memory.detach().as_strided((count,), (1,), 0)
    all_of_it.fill_(float("nan") if memory.dtype.is_floating_point else 1)


class Simulated(torch.Tensor):
    """A tensor on a simulated device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    memory: torch.Tensor
    block: Block

    @staticmethod
    def __new__(cls, memory: torch.Tensor, block: Block) -> Simulated:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            memory.shape,
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device="cpu",
        )
        made.memory, made.block = memory, block
        return made  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.block.home.device

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def to(self, *where: Any, **how: Any) -> torch.Tensor:  # type: ignore[override]
        copy = how.pop("copy", False)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*where, **how)
        device = _indexed(device or self.device)
        dtype = dtype or self.dtype
        if not copy and (device, dtype, layout) == (self.device, self.dtype, None):
            return self
        return torch.ops.aten._to_copy.default(  # type: ignore[no-any-return]
            self, dtype=dtype, device=device, non_blocking=non_blocking, memory_format=layout
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.to("cpu")

    def record_stream(self, stream: Stream) -> None:  # type: ignore[override]
        without = self.block.machine.without
        if stream is not self.block.home and "record_stream" not in without:
            self.block.used_on.append(stream)

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a CUDA tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Simulated({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def _indexed(device: torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", running().index)
    return device


class Mode(TorchDispatchMode):
    """Sees what makes simulated tensors of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = torch._C.DispatchKey.CompositeImplicitAutograd
        if func.has_kernel_for_dispatch_key(key):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return dispatch(func, args, kwargs)


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do, or queue, one operation of torch."""
    machine = running()
    name = func.overloadpacket.__name__
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    on_device = [x for x in tensors if isinstance(x, Simulated)]
    wanted = kwargs.get("device")
    wanted = None if wanted is None else _indexed(wanted)
    if not on_device and (wanted is None or wanted.type != "cuda"):
        return func(*args, **kwargs)
    device = on_device[0].device if on_device else wanted
    assert device is not None
    with machine.lock:
        if name == "_to_copy":
            return _to_copy(machine, func, args[0], wanted or device, kwargs)
        if name == "copy_":
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            return _copy(machine, args[0], args[1], non_blocking)
        if any(x.device != device for x in on_device):
            raise RuntimeError(f"{func}: tensors are on several devices")
        index = tensors[1:] if name in ("index", "index_put_", "index_put") else []
        for other in tensors:
            if not isinstance(other, Simulated) and other.dim() > 0:
                if not any(other is place for place in index):
                    raise RuntimeError(f"{func}: a tensor is on the CPU, others on {device}")
                machine.wait(device, f"{name} with an index of the CPU")
        real_args, real_kwargs = tree_map(_memory, (args, kwargs))
        if "device" in real_kwargs:
            real_kwargs["device"] = torch.device("cpu")
        if name in VIEWS:
            [base] = on_device
            found = func(*real_args, **real_kwargs)
            with torch.inference_mode(base.is_inference()):
                return _each(found, lambda view: Simulated(view, base.block))
        if name in ASKS_FOR_A_VALUE:
            machine.wait(device, name)
            found = func(*real_args, **real_kwargs)
            return _each(found, lambda made: _arrived(machine, made, device))
        if name.endswith("_") and not name.endswith("__"):
            machine.queue(device, lambda: func(*real_args, **real_kwargs))
            return args[0] if func._schema.returns else None
        return _compute(machine, func, args, kwargs, real_args, real_kwargs, device)


def _compute(
    machine: Machine,
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    real_args: Any,
    real_kwargs: dict[str, Any],
    device: torch.device,
) -> Any:
    meta_args, meta_kwargs = tree_map(_meta, (args, kwargs))
    if "device" in meta_kwargs:
        meta_kwargs["device"] = torch.device("meta")
    outputs: list[torch.Tensor] = []

    def place(shape: torch.Tensor) -> torch.Tensor:
        memory = torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype)
        outputs.append(memory)
        return machine.allocate(memory, device)

    try:
        shapes = func(*meta_args, **meta_kwargs)
    except NotImplementedError:  # the shapes depend on values, as those of a mask's choice do
        machine.wait(device, func.overloadpacket.__name__)
        return _each(func(*real_args, **real_kwargs), lambda made: _arrived(machine, made, device))
    result = _each(shapes, place)
    if not func.overloadpacket.__name__.startswith(("empty", "new_empty")):

        def run() -> None:
            found = tree_leaves(func(*real_args, **real_kwargs))
            values = [x for x in found if isinstance(x, torch.Tensor)]
            for output, value in zip(outputs, values, strict=True):
                # Devices differ in which of an operation's buffers they leave empty.
                if value.numel() and output.numel():
                    output.copy_(value)

        machine.queue(device, run)
    return result


def _to_copy(
    machine: Machine, func: Any, source: torch.Tensor, to: torch.device, kwargs: dict[str, Any]
) -> torch.Tensor:
    if to.type == "cpu":
        memory = _memory(source)
        machine.wait(source.device, "copy to the CPU")
        return memory.to(kwargs.get("dtype") or memory.dtype, copy=True)
    dtype = kwargs.get("dtype") or source.dtype
    shape = func(_meta(source), dtype=dtype, memory_format=kwargs.get("memory_format"))
    made = machine.allocate(torch.empty_strided(shape.shape, shape.stride(), dtype=dtype), to)
    _copy(machine, made, source, bool(kwargs.get("non_blocking")))
    return made


def _copy(
    machine: Machine, to: torch.Tensor, source: torch.Tensor, non_blocking: bool
) -> torch.Tensor:
    into, values = _memory(to), _memory(source)
    if isinstance(to, Simulated) and isinstance(source, Simulated):
        if to.device != source.device:
            machine.wait(source.device, "copy between devices")
        machine.queue(to.device, lambda: into.copy_(values))
    elif isinstance(to, Simulated):
        if non_blocking and machine.is_page_locked(source):
            machine.counts["copies"] += 1
            machine.queue(to.device, lambda: into.copy_(values))
        else:
            kept = values.clone()
            machine.queue(to.device, lambda: into.copy_(kept))
            machine.wait(to.device, "copy from the CPU")
    elif non_blocking and machine.is_page_locked(to):
        machine.counts["copies"] += 1
        machine.queue(source.device, lambda: into.copy_(values))
    else:
        machine.wait(source.device, "copy to the CPU")
        into.copy_(values)
    return to


def _arrived(machine: Machine, value: torch.Tensor, device: torch.device) -> Simulated:
    made = machine.allocate(torch.empty_like(value), device)
    made.memory.copy_(value)
    return made


def _memory(value: Any) -> Any:
    return value.memory if isinstance(value, Simulated) else value


def _meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, Simulated) and value.dim() == 0:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _each(found: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return tree_map(lambda x: change(x) if isinstance(x, torch.Tensor) else x, found)


_running: list[Machine] = []


def running() -> Machine:
    """The machine that is installed."""
    return _running[-1]
