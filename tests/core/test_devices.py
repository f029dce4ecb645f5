"""Which device a name means, whatever kinds there are, and how a lack of memory is recognised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tspcli
from tests.builders.gpus import WHEEL, Gpus
from tests.builders.refusals import refused
from tspcli.core.devices import is_out_of_memory, resolve_device, sleeping_event, unsupported_gpu
from tspcli.errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_cuda_devices_always_have_their_index(gpus: Gpus) -> None:
    """torch.cuda.set_device takes no other, and each thread has a current device of its own."""
    gpus((9, 0), (9, 0))
    for name in ("auto", "cuda", "cuda:0", torch.device("cuda")):
        assert resolve_device(name) == GPU
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    gpus((9, 0), (9, 0), current=1)
    for name in ("auto", "cuda"):
        assert resolve_device(name) == torch.device("cuda", 1)


def test_without_a_gpu(gpus: Gpus) -> None:
    gpus()
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    for name in ("cuda", "cuda:0", "abacus", "cpu:x"):
        with pytest.raises(UsageError) as caught:
            resolve_device(name)
        assert caught.value.data == {"option": "device", "value": name}
    gpus((9, 0))
    with pytest.raises(UsageError) as caught:
        resolve_device("cuda:1")
    assert caught.value.data["value"] == "cuda:1"


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), WHEEL, True),
        ((8, 9), WHEEL, True),
        ((12, 0), WHEEL, True),
        ((12, 1), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((6, 1), WHEEL, False),
        ((11, 0), WHEEL, False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((7, 5), ["sm_80", "compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], True),
        ((9, 0), ["gfx90a"], True),
    ],
)
def test_gpus_that_this_torch_has_no_code_for(
    gpus: Gpus, capability: tuple[int, int], built_for: list[str], runs: bool
) -> None:
    gpus(capability, built_for=built_for)
    assert (unsupported_gpu(0) is None) == runs
    if runs:
        assert resolve_device("auto") == resolve_device("cuda") == GPU
        return
    with pytest.raises(UsageError) as caught:
        resolve_device("cuda")
    assert "Pretended 0" in caught.value.message
    assert f"{capability[0]}.{capability[1]}" in caught.value.message
    with pytest.warns(UserWarning, match="Pretended 0"):
        assert resolve_device("auto") == CPU


def test_other_accelerators_have_their_index_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = torch.device("xpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
    assert resolve_device("xpu") == torch.device("xpu", 1)
    assert resolve_device("xpu:0") == torch.device("xpu", 0)
    for name in ("xpu:2", "mps"):
        with refused(UsageError, option="device", value=name):
            resolve_device(name)


def test_cuda_is_asked_for_by_name_only_where_it_is_meant() -> None:
    """Everything else stands on torch.accelerator, torch.Stream and torch.Event."""
    package = Path(tspcli.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "torch.cuda" in path.read_text(encoding="utf-8")
    }
    assert found == {
        "core/devices.py",
        "doctor.py",
        "encoders/precision.py",  # which arithmetic a generation of GPUs has
        "encoders/runtimes.py",  # graphs
        "extraction/feeder.py",  # NVDEC
        "video/decoders/torchcodec_cuda_source.py",
    }


def test_a_thread_that_waits_for_cuda_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.Event ignores what it is asked for."""
    made: list[bool] = []
    monkeypatch.setattr(torch.cuda, "Event", lambda *, blocking: made.append(blocking))
    sleeping_event(GPU)
    assert made == [True]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_lack_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
