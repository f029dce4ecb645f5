"""Backbones prepared for batches of one shape: compiled, and recorded as a CUDA graph.

What they gain depends on the device; docs/speed.md says where it was measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tspcli.errors import UsageError
from tspcli.wording import first_line

_WARM_UP_RUNS = 3
"""Before recording: cuDNN searches for its algorithms and Triton compiles, neither of which can be
recorded."""


def static_form(form: nn.Module, device: torch.device) -> nn.Module:
    """What ``--runtime compiled`` runs: compiled, and on CUDA all kernels launched at once."""
    compiled = CompiledForm(form)
    return GraphedForm(compiled) if device.type == "cuda" else compiled


class CompiledForm(nn.Module):
    """A backbone that torch's compiler writes anew, for every shape of clips when it first comes.

    Bias, ReLU and shortcut then join the convolution before them where it pays.

    Args:
        form: Any backbone, on its device; it is used, not copied.

    Raises:
        UsageError: When first called, if it cannot be compiled here.
    """

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = form
        self._run: Any = torch.compile(form, dynamic=False, fullgraph=True)
        self._known: set[tuple[int, ...]] = set()

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        # Another order in memory would be compiled anew, too.
        clips = clips.contiguous()
        shape = tuple(clips.shape)
        if shape not in self._known:
            rows = self._compile(clips)
            self._known.add(shape)
            return rows
        again: Tensor = self._run(clips)
        return again

    def _compile(self, clips: Tensor) -> Tensor:
        # Compiling in processes of its own would run them in the current folder, where a stray
        # module of the user's would be taken for one of torch's.
        import torch._inductor.config as inductor

        settings: Any = torch._dynamo.config
        try:
            # Past so many shapes the compiler refuses, which guards against endless compiling; a
            # run has as many as its batches are halved.
            limit = max(settings.recompile_limit, len(self._known) + 2)
            with (
                settings.patch(recompile_limit=limit),
                inductor.patch(compile_threads=1),
            ):
                rows: Tensor = self._run(clips)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # whatever two compilers and the system's may say
            raise UsageError(
                f"--runtime compiled: torch cannot compile this backbone here: {first_line(error)}",
                remedy="Use --runtime torch; compiling needs a C++ compiler, on CUDA Triton too.",
            ) from error
        return rows


class GraphedForm(nn.Module):
    """A backbone on a CUDA device whose kernels are recorded once and launched all at once.

    Rows lie where the next call of the same shape will put its own: copy them on the same stream.

    Args:
        form: Any backbone, on its device; it is used, not copied.
    """

    def __init__(self, form: nn.Module) -> None:
        super().__init__()
        self.form = form
        self._recorded: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        shape = tuple(clips.shape)
        if shape not in self._recorded:
            try:
                self._recorded[shape] = self._record(clips)
            except torch.OutOfMemoryError:
                # Smaller batches follow: what larger ones hold would be missed.
                self._recorded.clear()
                raise
        graph, place, rows = self._recorded[shape]
        place.copy_(clips)
        graph.replay()
        return rows

    def _record(self, clips: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        with torch.cuda.device(clips.device):
            place = clips.clone(memory_format=torch.contiguous_format)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    self.form(place)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads page-lock memory meanwhile, which a stricter mode forbids.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                rows = self.form(place)
        return graph, place, rows


__all__ = ["CompiledForm", "GraphedForm", "static_form"]
