"""Backbones prepared for batches of one shape: compiled, and recorded as a CUDA graph.

docs/encoders.md says what they gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tspcli.errors import UsageError
from tspcli.wording import first_line

_WARM_UP_RUNS = 3
"""Before recording: cuDNN searches for its algorithms and Triton compiles, neither of which can be
recorded."""
_MOST_SHAPES = 1000
_NO_MEMORY = ("out of memory", "can't allocate memory")
"""How torch says it where it has no error of its own for it."""


def static_form(form: nn.Module, device: torch.device) -> nn.Module:
    """What ``--runtime compiled`` runs: compiled, and on CUDA all kernels launched at once."""
    compiled = CompiledForm(form)
    return GraphedForm(compiled) if device.type == "cuda" else compiled


class CompiledForm(nn.Module):
    """A backbone that torch's compiler writes anew, for every shape of clips when it first comes.

    What is left between two convolutions (bias, ReLU, shortcut) then becomes one operation.

    Args:
        form: Any backbone, on its device; it is used, not copied.
        mode: Of ``torch.compile``.

    Raises:
        UsageError: When called, if it cannot be compiled here.
    """

    def __init__(self, form: nn.Module, mode: str | None = None) -> None:
        super().__init__()
        self.form = form
        self._run: Any = torch.compile(form, dynamic=False, fullgraph=True, mode=mode)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        with _compiling():
            # In another order in memory it would be compiled anew, too.
            rows: Tensor = self._run(clips.contiguous())
        return rows


@contextmanager
def _compiling() -> Iterator[None]:
    """For the length of a call, any of which may compile: only the compiler knows which."""
    import torch._inductor.config as inductor

    dynamo: Any = torch._dynamo.config
    # The compiler would give up after eight shapes; a run has as many as its batches are halved.
    # Its own processes would start in the current folder, where a stray module of the user's
    # would be taken for one of torch's.
    with (
        dynamo.patch(recompile_limit=_MOST_SHAPES, accumulated_recompile_limit=_MOST_SHAPES),
        inductor.patch(compile_threads=1),
        _explained(),
    ):
        yield


@contextmanager
def _explained() -> Iterator[None]:
    """Name the remedy when a form cannot be made; a lack of memory has one of its own."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, UsageError):
        raise
    except Exception as error:  # whatever two compilers, the system's and CUDA may say
        if any(words in str(error) for words in _NO_MEMORY):
            raise torch.OutOfMemoryError(first_line(error)) from error
        raise UsageError(
            f"--runtime compiled: torch cannot run this backbone so: {first_line(error)}",
            remedy="Use --runtime torch; compiling needs a C++ compiler, on CUDA Triton too.",
        ) from error


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
            with _explained():
                self._recorded[shape] = self._record(clips)
        graph, place, rows = self._recorded[shape]
        place.copy_(clips)
        graph.replay()
        return rows

    def release(self) -> None:
        """Give back the memory of all that is recorded."""
        self._recorded.clear()

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
            # Without a stream of its own it would take one of whichever device came first. Other
            # threads page-lock memory meanwhile, which a stricter mode forbids.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                rows = self.form(place)
        return graph, place, rows


__all__ = ["CompiledForm", "GraphedForm", "static_form"]
