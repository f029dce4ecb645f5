"""Backbones prepared for batches of one shape: compiled, and recorded as a CUDA graph.

docs/encoders.md says what they gain.

A backbone in OpenVINO's runtime, for CPUs where that is faster than torch: docs/encoders.md.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tspcli.core.text import first_line
from tspcli.errors import DependencyError, UsageError

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


_TELEMETRY = "openvino_telemetry"
_ONE_AT_A_TIME = threading.RLock()
_cores: list[Any] = []


@contextmanager
def _untold() -> Iterator[None]:
    """Keep OpenVINO from telling its maker that it was imported or has converted a model.

    It does so by a package of its own, without asking, and does without where that is missing.
    """
    with _ONE_AT_A_TIME:
        known = sys.modules.get(_TELEMETRY)
        # Python's own way to say that a module is not to be had, which its stubs do not know.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[_TELEMETRY]
            if known is not None:
                sys.modules[_TELEMETRY] = known


def import_openvino() -> Any:
    """The package ``openvino``.

    Raises:
        DependencyError: If it is not installed, or does not work here.
    """
    try:
        with _untold():
            import openvino
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            f"--runtime openvino: {error}.",
            remedy="pip install 'tspcli[openvino]', or use --runtime torch.",
        ) from error
    return openvino


def _core() -> Any:
    """The process's one core, which is never taken down.

    Each that compiles for CPUs gives its thread a stack for signals and later unmaps it, and puts
    back the one before, even if that was another core's and is gone: the next signal then ends the
    process without a word.
    """
    with _ONE_AT_A_TIME:
        if not _cores:
            _cores.append(import_openvino().Core())
    return _cores[0]


class OpenVinoForm(nn.Module):
    """A backbone that OpenVINO runs; made for a shape of clips when the first such clips come.

    Args:
        backbone: Any backbone of the registry, in float32 on a CPU; it is left as it is.

    Raises:
        DependencyError: If OpenVINO is not installed.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self._openvino = import_openvino()
        # In a list, so that this module has no parameters that could be moved elsewhere.
        self._plain = [copy.deepcopy(backbone).eval().requires_grad_(False)]
        self._converted: dict[tuple[int, ...], Any] = {}
        self._compiled: dict[tuple[int, ...], Any] = {}

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) float32 to (B, D)."""
        shape = tuple(clips.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(clips)
        [rows] = self._compiled[shape]([clips.contiguous().numpy()]).values()
        # The array belongs to the request, which the next call writes to.
        return torch.from_numpy(rows.copy())

    def _compile(self, clips: Tensor) -> Any:
        shape = tuple(clips.shape[1:])
        if shape not in self._converted:
            self._converted[shape] = self._convert(shape)
        model = self._converted[shape].clone()
        # Fixed shapes run faster than one that is open.
        model.reshape(list(clips.shape))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # Otherwise bf16 on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return _core().compile_model(model, "CPU", settings)

    def _convert(self, shape: tuple[int, ...]) -> Any:
        """The backbone for any number of clips of one shape."""
        # Two, since the number one would be taken for a constant.
        example = torch.zeros(2, *shape)
        sizes = ({0: torch.export.Dim("clips")},)
        try:
            with torch.inference_mode(False), warnings.catch_warnings(), _untold():
                warnings.simplefilter("ignore")
                exported = torch.export.export(self._plain[0], (example,), dynamic_shapes=sizes)
                return self._openvino.convert_model(exported)
        except Exception as error:  # the exceptions of two compilers
            raise UsageError(
                f"OpenVINO cannot run this backbone: {first_line(error)}",
                remedy="Use --runtime torch.",
            ) from error


__all__ = ["OpenVinoForm", "import_openvino"]
