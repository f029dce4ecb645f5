"""Which runtime and arithmetic a name means. GPUs are played by patched queries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from tests.builders.gpus import Gpus
from tspcli.encoders.precision import arithmetic, resolve_precision, resolve_runtime
from tspcli.errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "inference", "training"),
    [(None, "fp32", "fp32"), ((7, 5), "fp16", "fp32"), ((8, 0), "fp16", "bf16")],
)
def test_auto_precision(
    gpus: Gpus, capability: tuple[int, int] | None, inference: str, training: str
) -> None:
    device = CPU if capability is None else GPU
    gpus(*([] if capability is None else [capability]))
    assert resolve_precision("auto", device) == inference
    assert resolve_precision("auto", device, training=True) == training


def test_precisions_that_a_device_lacks(gpus: Gpus) -> None:
    gpus((7, 5))
    refused = {(CPU, "tf32"), (CPU, "fp16"), (GPU, "tf32"), (GPU, "bf16"), (CPU, "fp8")}
    for device in (CPU, GPU):
        for name in ("fp32", "tf32", "bf16", "fp16"):
            if (device, name) not in refused:
                assert resolve_precision(name, device) == name
    for device, name in refused:
        with pytest.raises(UsageError) as caught:
            resolve_precision(name, device)
        assert caught.value.data == {"option": "precision", "value": name}
    gpus((8, 0))
    assert resolve_precision("tf32", GPU) == "tf32" and resolve_precision("bf16", GPU) == "bf16"


@pytest.mark.parametrize(
    ("choices", "option"),
    [
        (("abacus", "auto", "auto"), "runtime"),
        (("openvino", "cuda:1", "auto"), "device"),
        (("openvino", "auto", "bf16"), "precision"),
    ],
)
def test_runtimes_that_cannot_compute_so(choices: tuple[str, str, str], option: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_runtime(*choices)
    assert caught.value.data["option"] == option


def test_runtimes() -> None:
    assert resolve_runtime("openvino", "auto", "fp32") == "openvino"
    assert resolve_runtime("openvino", torch.device("cpu"), "auto") == "openvino"
    assert resolve_runtime("compiled", "cuda", "fp16") == "compiled"


def switches() -> dict[str, Any]:
    """What a program can read of torch's arithmetic, in both ways to switch it."""
    backends: Any = torch.backends
    reads: dict[str, Callable[[], Any]] = {
        "matmul": lambda: backends.cuda.matmul.fp32_precision,
        "conv": lambda: backends.cudnn.conv.fp32_precision,
        "rnn": lambda: backends.cudnn.rnn.fp32_precision,
        "cpu matmul": lambda: backends.mkldnn.matmul.fp32_precision,
        "old matmul": lambda: backends.cuda.matmul.allow_tf32,
        "old cudnn": lambda: backends.cudnn.allow_tf32,
        "float32 matmul": torch.get_float32_matmul_precision,
        "benchmark": lambda: backends.cudnn.benchmark,
        "deterministic": lambda: backends.cudnn.deterministic,
    }
    found = {}
    for name, read in reads.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "raises"
    return found


def set_globally(value: str) -> None:
    torch.backends.fp32_precision = value


PROGRAMS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "global tf32": lambda: set_globally("tf32"),
    "global ieee": lambda: set_globally("ieee"),
    "matmul": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "conv tf32": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    "conv ieee": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "cudnn": lambda: setattr(torch.backends.cudnn, "fp32_precision", "tf32"),
    "cpu": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "tf32"),
    "old, then new": lambda: (
        setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    ),
    "new, then old": lambda: (
        set_globally("ieee"),
        torch.set_float32_matmul_precision("high"),
        setattr(torch.backends.cudnn, "allow_tf32", True),
    ),
    "old": lambda: (
        setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        setattr(torch.backends.cudnn, "allow_tf32", False),
    ),
}


@pytest.fixture
def fresh_switches() -> Any:
    """Torch's switches are the process's: put them back as a new process has them."""
    backends: Any = torch.backends
    parts = [backends, backends.cudnn, backends.cuda.matmul, backends.mkldnn.matmul]
    parts += [backends.cudnn.conv, backends.cudnn.rnn]
    new = [part.fp32_precision for part in parts]
    yield
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for part, value in zip(parts, new, strict=True):
        part.fp32_precision = value


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", True), ("fp16", True)]
)
@pytest.mark.parametrize("training", [False, True], ids=["encoding", "training"])
def test_tf32_is_as_asked_for_and_put_back(
    fresh_switches: Any, program: str, precision: str, tf32: bool, training: bool
) -> None:
    """Whichever way to switch it the caller's program has used, nothing raises."""
    PROGRAMS[program]()
    before = switches()
    with suppress(MemoryError), arithmetic(GPU, precision, training=training):
        inside = switches()
        with arithmetic(GPU, "fp32" if tf32 else "tf32"):
            assert switches()["old matmul"] is not tf32
        assert switches() == inside
        raise MemoryError
    assert inside["matmul"] == inside["conv"] == ("tf32" if tf32 else "ieee")
    assert inside["old matmul"] is tf32 and inside["old cudnn"] is tf32
    assert "raises" not in inside.values()
    assert inside["benchmark"] and not inside["deterministic"]
    after = switches()
    # Reading the old switch may raise before, and give an answer afterwards.
    assert {k: v for k, v in after.items() if before[k] != "raises"} == {
        k: v for k, v in before.items() if v != "raises"
    }


def test_training_in_bf16_on_a_cpu_goes_without_onednn() -> None:
    assert torch.backends.mkldnn.enabled
    with arithmetic(CPU, "bf16", training=True):
        assert not torch.backends.mkldnn.enabled
    for precision, training in (("bf16", False), ("fp32", True)):
        with arithmetic(CPU, precision, training=training):
            assert torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled
