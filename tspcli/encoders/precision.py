"""The runtime and the arithmetic that a name means on a device, for inference and for training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch

from tspcli.core.arithmetic import cuda_arithmetic
from tspcli.encoders import PRECISIONS, RUNTIMES, Precision, Runtime
from tspcli.errors import UsageError

DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The dtype of activations in each precision."""
_AMPERE = (8, 0)


def resolve_runtime(runtime: str, device: str | torch.device, precision: str) -> Runtime:
    """The runtime of that name, if it can compute on this device and in this precision.

    Raises:
        UsageError: If it cannot, or there is none of that name.
    """
    _require_known("runtime", runtime, RUNTIMES)
    if runtime == "openvino":
        for option, value, only in (
            ("device", str(device), "cpu"),
            ("precision", precision, "fp32"),
        ):
            if value not in ("auto", only):
                raise UsageError(
                    f"--runtime openvino and --{option} {value} exclude each other: OpenVINO "
                    f"computes on CPUs in fp32.",
                    remedy="Leave one of the two out.",
                    option=option,
                    value=value,
                )
    return cast(Runtime, runtime)


def _require_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"There is no {option} {value!r}.",
            remedy=f"Give one of {', '.join(known)}.",
            option=option,
            value=value,
        )


def resolve_precision(precision: str, device: torch.device, *, training: bool = False) -> Precision:
    """The arithmetic that a precision means on a device.

    ``auto`` is fp32 on CPUs. On CUDA it is fp16 for inference, as fast as bf16 and eight times
    finer (:meth:`Encoder.encode` notices if its range is too small); for training it is bf16 where
    the device has it, else fp32.

    Raises:
        UsageError: If it is unknown or the device lacks it.
    """
    cuda = device.type == "cuda"
    _require_known("precision", precision, PRECISIONS)
    if precision == "auto":
        if not cuda:
            return "fp32"
        if not training:
            return "fp16"
        return "bf16" if _has_ampere_arithmetic(device) else "fp32"
    if precision in ("tf32", "fp16") and not cuda:
        raise UsageError(
            f"{precision} needs a CUDA device; {device} does not have it.",
            remedy="Use --precision auto, fp32 or bf16.",
            option="precision",
            value=precision,
        )
    if precision in ("tf32", "bf16") and cuda and not _has_ampere_arithmetic(device):
        raise UsageError(
            f"{precision} needs a GPU of compute capability 8.0 or newer; {device} is older.",
            remedy=f"Use --precision {'fp32' if training else 'fp16 or fp32'}.",
            option="precision",
            value=precision,
        )
    return cast(Precision, precision)


def _has_ampere_arithmetic(device: torch.device) -> bool:
    """Whether a CUDA device has bf16 and TF32 units, which torch's convolutions need for bf16."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= _AMPERE


@contextmanager
def arithmetic(device: torch.device, precision: str, *, training: bool = False) -> Iterator[None]:
    """Compute in exactly the arithmetic asked for, and restore torch's settings afterwards.

    TF32 is on for every precision but fp32: in the reduced ones it applies to the few float32
    products that are left, and is at least as fine.
    """
    if device.type == "cuda":
        with cuda_arithmetic(tf32=precision != "fp32", search=True):
            yield
    elif training and precision == "bf16":
        # oneDNN's bfloat16 weight gradient of a 3x1x1 convolution over two frames, which the last
        # stage of the video ResNets has, is NaN or uninitialised (torch 2.15, AVX-512). torch's own
        # convolutions are slow, but right.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    else:
        yield


__all__ = [
    "DTYPES",
    "PRECISIONS",
    "RUNTIMES",
    "Precision",
    "Runtime",
    "arithmetic",
    "resolve_precision",
    "resolve_runtime",
]
