"""The devices that torch computes on: which one a name means, and what all of them can do.

Devices other than the CPU are used through ``torch.accelerator``, ``torch.Stream`` and
``torch.Event``, which are the same for CUDA, ROCm and XPU. Only what CUDA alone has asks for it by
name.
"""

from __future__ import annotations

import re
import warnings

import torch

from tspcli.errors import UsageError

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch's errors say where it has no error type of its own for a lack of memory."""


def device_count(kind: str = "cuda") -> int:
    """How many devices of a kind torch sees: ``cuda``, which is ROCm too, or another."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.accelerator.device_count() if found is not None and found.type == kind else 0


def resolve_device(device: str | torch.device, index: int | None = None) -> torch.device:
    """The torch device that a name means; an accelerator always has its index.

    ``auto`` is a CUDA device, or the CPU if there is none or this torch has no code for it (which a
    warning says).

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or another of torch's accelerators.
        index: Of the device that a name without one means; that of the current device by default.

    Raises:
        UsageError: If there is no such device here, or this torch has no code for it.
    """
    if device == "auto":
        if not device_count():
            return torch.device("cpu")
        where = torch.device("cuda", _current_index("cuda") if index is None else index)
        problem = unsupported_gpu(where.index)
        if problem:
            warnings.warn(f"{problem} Computing on the CPU.", stacklevel=2)
        return torch.device("cpu") if problem else where
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"There is no device {device!r}.",
            remedy="Give auto, cpu, cuda or cuda:N.",
            option="device",
            value=str(device),
        ) from error
    if where.type == "cpu":
        return where
    count = device_count(where.type)
    if where.index is not None:
        index = where.index
    elif index is None and count:
        index = _current_index(where.type)
    if index is None or index >= count:
        raise UsageError(
            f"There is no device {where}: torch sees {count} of this kind.",
            remedy="Use --device cpu, or see `tsp doctor`.",
            option="device",
            value=str(device),
        )
    problem = unsupported_gpu(index) if where.type == "cuda" else None
    if problem:
        raise UsageError(
            problem,
            remedy="Install a torch that supports it (such as a wheel for CUDA 12.6), or use "
            "--device cpu.",
            option="device",
            value=str(device),
        )
    return torch.device(where.type, index)


def _current_index(kind: str) -> int:
    if kind != "cuda":
        return torch.accelerator.current_device_index()
    # Before CUDA is initialised nobody can have chosen another than the first.
    return torch.cuda.current_device() if torch.cuda.is_initialized() else 0


def unsupported_gpu(index: int) -> str | None:
    """Why this build of torch cannot compute on a CUDA device, in a sentence; None if it can.

    Binary code (``sm_XY``) runs on devices of the same major version and at least the same minor
    one; PTX (``compute_XY``) is compiled for any later device.
    """
    if torch.version.hip is not None:
        return None
    major, minor = torch.cuda.get_device_capability(index)
    built_for = torch.cuda.get_arch_list()
    for name in built_for:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name)
        if match is None:
            return None
        kind, version = match[1], (int(match[2]), int(match[3]))
        if version <= (major, minor) and (kind == "compute" or version[0] == major):
            return None
    if not built_for:
        return None
    return (
        f"{torch.cuda.get_device_name(index)} (cuda:{index}) has compute capability "
        f"{major}.{minor}, for which torch {torch.__version__} contains no code."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports a lack of memory, of the device or of the machine.

    torch raises its own type only for its own allocator; CUDA, cuDNN and the CPU's allocator report
    it in a RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in _OUT_OF_MEMORY)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator; None if it does not report it, as a full one may not."""
    try:
        return int(torch.accelerator.get_memory_info(device)[0])
    except RuntimeError:
        return None


def sleeping_event(device: torch.device) -> torch.Event:
    """An event for which a waiting thread sleeps, where the device can do that.

    A thread that spins instead takes a core from the decoders. ``torch.Event`` ignores its argument
    ``blocking`` (torch 2.15), so that CUDA's own event is needed.
    """
    if device.type == "cuda":
        return torch.cuda.Event(blocking=True)
    return torch.Event(device)
