"""Lets torch have the devices of a simulated machine, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from tests.builders.simulated_accelerator import (
    Event,
    Graph,
    Machine,
    Stream,
    _running,
)
from tests.builders.simulated_tensors import Mode, Simulated


@contextlib.contextmanager
def simulated(machine: Machine) -> Iterator[Machine]:
    """Within the context, and in threads that start there, torch has the machine's devices."""
    real_run, real_empty, real_tensor = threading.Thread.run, torch.empty, torch.tensor

    def run(thread: threading.Thread) -> None:
        with Mode():
            real_run(thread)

    def empty(*size: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
        made = real_empty(*size, **how)
        return machine.page_lock(made) if pin_memory else made

    def tensor(data: Any, *, device: Any = None, **how: Any) -> torch.Tensor:
        made = real_tensor(data, **how)
        return made if device is None else made.to(device)

    def pin_memory(values: torch.Tensor, device: Any = None) -> torch.Tensor:
        made = machine.page_lock(real_empty(values.shape, dtype=values.dtype))
        return made.copy_(values)

    def set_index(device: Any) -> None:
        machine.here.index = machine.index_of(device)

    n_devices = len(machine.default)
    in_torch = {"Stream": Stream, "Event": Event, "empty": empty, "tensor": tensor}
    accelerator = {
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "is_available": lambda: True,
        "device_count": lambda: n_devices,
        "current_device_index": lambda: machine.index,
        "set_device_index": set_index,
        "current_stream": machine.current,
        "synchronize": machine.synchronize,
        "empty_cache": lambda: None,
        "get_memory_info": lambda device=None: (80 << 30, 80 << 30),
    }
    cuda = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: n_devices,
        "current_device": lambda: machine.index,
        "get_device_capability": lambda device=None: (9, 0),
        "get_arch_list": lambda: ["sm_90"],
        "_lazy_init": lambda: None,
        "Stream": Stream,
        "Event": Event,
        "stream": machine.on,
        "current_stream": machine.current,
        "device": machine.on_device,
        "CUDAGraph": Graph,
        "graph": Graph.capture,
    }
    patches: list[Any] = [
        mock.patch.multiple(torch, **in_torch),
        mock.patch.multiple(torch.accelerator, **accelerator),
        mock.patch.multiple(torch.cuda, **cuda),
        mock.patch.object(torch.Tensor, "pin_memory", pin_memory),
        mock.patch.object(threading.Thread, "run", run),
        mock.patch.object(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", _one_group),
    ]
    with contextlib.ExitStack() as stack:
        _running.append(machine)
        stack.callback(_running.remove, machine)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(Mode())
        yield machine


def _one_group(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Of an optimiser's tensors, which here are of one dtype and on one device."""
    [first, *_] = lists[0]
    assert isinstance(first, Simulated)
    return {(first.device, first.dtype): (lists, list(range(len(lists[0]))))}
