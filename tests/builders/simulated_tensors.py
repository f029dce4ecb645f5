"""Tensors of a simulated device: each operation on them is queued, or makes the host wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.builders.simulated_accelerator import Block, Machine, Stream, poison, running

VIEWS = {"_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand"}
VIEWS |= {"permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"}
VIEWS |= {"unbind", "unfold", "unsqueeze", "view"}
ASKS_FOR_A_VALUE = {"_local_scalar_dense", "_unique2", "equal", "masked_select", "nonzero"}


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
        if stream is not self.block.home and not self.block.machine.leaves_out("record_stream"):
            self.block.used_on.append(stream)

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a CUDA tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Simulated({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def allocate(machine: Machine, memory: torch.Tensor, device: torch.device) -> Simulated:
    poison(memory)
    return Simulated(memory, Block(machine, memory, machine.current(device)))


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
        return allocate(machine, memory, device)

    try:
        shapes = func(*meta_args, **meta_kwargs)
    except NotImplementedError:  # the shapes depend on values, as those of a mask's choice do
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CPU"):
            raise  # an operation that this device lacks, as cuDNN's fused convolutions are
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
    made = allocate(machine, torch.empty_strided(shape.shape, shape.stride(), dtype=dtype), to)
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
    made = allocate(machine, torch.empty_like(value), device)
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
