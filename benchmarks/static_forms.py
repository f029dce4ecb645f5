"""The form that extraction runs, prepared for batches of one size: what a GPU might gain by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

Run = Callable[[], Tensor]


def compiled(form: nn.Module, clips: Tensor) -> Run:
    """Bias, ReLU and shortcut in one kernel after each convolution, written by torch's compiler."""
    run = torch.compile(form, dynamic=False, fullgraph=True)
    return lambda: cast(Tensor, run(clips))


def graphed(form: nn.Module, clips: Tensor) -> Run:
    """All kernels of a batch launched at once; copying the clips to their place takes part."""
    device = clips.device
    static = clips.clone()
    with torch.cuda.device(device):
        # cuDNN searches for its algorithms before: a search cannot be recorded.
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):
                form(static)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rows = form(static)

    def run() -> Tensor:
        static.copy_(clips)
        graph.replay()
        return cast(Tensor, rows)

    return run


STATIC_FORMS: dict[str, Callable[[nn.Module, Tensor], Run]] = {
    "compiled": compiled,
    "CUDA graph": graphed,
}
