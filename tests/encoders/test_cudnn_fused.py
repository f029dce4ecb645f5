"""cuDNN's fused convolutions, played by torch's own operations: used where right, else left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.builders.networks import clips, relative, shaken
from tests.builders.simulated_accelerator import Machine
from tests.builders.simulated_torch import simulated
from tspcli.encoders import build_backbone, fused
from tspcli.encoders.cudnn_fused import CudnnConvolution, Geometry, plain_convolution

AT = Geometry((1, 1), (1, 1))
Change = Callable[[Tensor], Tensor]


class Cudnn:
    """Stands in for cuDNN; what it returns can be spoilt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spoil: Change = lambda out: out) -> None:
        self.calls, self.spoil = 0, spoil
        monkeypatch.setattr(torch, "cudnn_convolution_relu", self.relu)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", self.add_relu)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor, *at: Any) -> Tensor:
        self.calls += 1
        return (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight, bias, *at[:2])

    def relu(self, x: Tensor, weight: Tensor, bias: Tensor, *at: Any) -> Tensor:
        return self.spoil(F.relu(self.convolve(x, weight, bias, *at)))

    def add_relu(
        self, x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *at: Any
    ) -> Tensor:
        return self.spoil(F.relu(self.convolve(x, weight, bias, *at) + alpha * z))


def inputs(count: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(count, 4, 6, 6),
        torch.randn(4, 4, 3, 3),
        torch.randn(4),
        torch.randn(count, 4, 6, 6),
    )


def no_kernel(out: Tensor) -> Tensor:
    raise NotImplementedError("no engine for this shape")


SPOILT: dict[str, Change] = {
    "NaN": lambda out: out * float("nan"),
    "one NaN in the middle": lambda out: out.index_fill(0, torch.tensor(1), float("nan")),
    "without its bias": lambda out: out + 0.1,
    "the last image": lambda out: torch.cat([out[:-1], out[-1:] * 1.01]),
    "zeros": torch.zeros_like,
    "no kernel": no_kernel,
}


@pytest.mark.parametrize("with_shortcut", [False, True])
def test_a_right_kernel_is_used_and_tried_once_a_shape(
    monkeypatch: pytest.MonkeyPatch, with_shortcut: bool
) -> None:
    cudnn, convolution = Cudnn(monkeypatch), CudnnConvolution()
    for count, calls in ((3, 3), (3, 4), (2, 7), (3, 8)):
        x, weight, bias, z = inputs(count)
        shortcut = z if with_shortcut else None
        expected = plain_convolution(x, weight, bias, AT, shortcut)
        assert torch.allclose(convolution(x, weight, bias, AT, shortcut), expected, atol=1e-5)
        assert cudnn.calls == calls


@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_wrong_kernel_is_not_used(
    monkeypatch: pytest.MonkeyPatch, spoil: Change, with_shortcut: bool
) -> None:
    cudnn, convolution = Cudnn(monkeypatch, spoil), CudnnConvolution()
    x, weight, bias, z = inputs()
    shortcut = z if with_shortcut else None
    expected = plain_convolution(x, weight, bias, AT, shortcut)
    assert torch.equal(convolution(x, weight, bias, AT, shortcut), expected)
    tried = cudnn.calls
    assert torch.equal(convolution(x, weight, bias, AT, shortcut), expected)
    assert cudnn.calls == tried


def test_a_kernel_that_reads_its_outputs_memory_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an engine that multiplies it by zero: right in clean memory, NaN in what a batch left."""
    memory = torch.zeros(3, 4, 6, 6)

    def into_memory(out: Tensor) -> Tensor:
        return memory.mul_(0).add_(out)

    Cudnn(monkeypatch, into_memory)
    x, weight, bias, _ = inputs()
    found = CudnnConvolution()(x, weight, bias, AT, None)
    assert torch.equal(found, plain_convolution(x, weight, bias, AT, None))


def test_out_of_memory_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It halves the batch; the kernel is tried again with the next one."""

    def full(out: Tensor) -> Tensor:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    cudnn, convolution = Cudnn(monkeypatch, full), CudnnConvolution()
    x, weight, bias, _ = inputs()
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        convolution(x, weight, bias, AT, None)
    cudnn.spoil = lambda out: out
    tried = cudnn.calls
    convolution(x, weight, bias, AT, None)
    assert cudnn.calls == tried + 3


def test_the_form_uses_it_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated device, every convolution with a ReLU; later batches wait for nothing."""
    cudnn = Cudnn(monkeypatch)
    plain = shaken(build_backbone("tiny"))
    x = clips(2, 16, 56)
    with torch.inference_mode():
        expected = plain(x)
    with simulated(Machine(order="random")) as machine, torch.inference_mode():
        device = torch.device("cuda", 0)
        form = fused.inference_form(plain, device, torch.float32)
        on_device = x.to(device)
        first = form(on_device).cpu()
        tried = cudnn.calls
        machine.waits.clear()
        again = form(on_device)
        assert not machine.waits
        again = again.cpu()
    assert 0 < tried == 3 * (cudnn.calls - tried)
    assert relative(first, expected) <= 1e-5 and relative(again, expected) <= 1e-5
