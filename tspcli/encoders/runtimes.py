"""Other ways to run a backbone than torch's eager mode, each prepared per shape of batch.

``--runtime compiled``: torch's compiler, on CUDA recorded as a graph as well. ``--runtime
openvino``: OpenVINO on CPUs. docs/notes/encoders.md has the measurements.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tspcli.core.devices import is_out_of_memory
from tspcli.core.text import first_line
from tspcli.errors import DependencyError, UsageError

_WARM_UP_RUNS = 3
"""Before recording: cuDNN searches for its algorithms and Triton compiles, neither of which can be
recorded."""
_MOST_SHAPES = 1000


def static_form(form: nn.Module, device: torch.device) -> nn.Module:
    """What ``--runtime compiled`` runs: compiled, and on CUDA with all kernels launched at once."""
    compiled = CompiledForm(form)
    return GraphedForm(compiled) if device.type == "cuda" else compiled


class CompiledForm(nn.Module):
    """A backbone that torch's compiler rewrites for every shape of clips when it first occurs.

    The operations between two convolutions (bias, ReLU, shortcut) become one.

    Args:
        form: Any backbone, on its device; it is used, not copied.
        mode: Of ``torch.compile``.
        backend: Of ``torch.compile``: a name, or a function from a graph to what runs it.

    Raises:
        UsageError: When called, if it cannot be compiled here.
        torch.OutOfMemoryError: When called, if there is too little memory.
    """

    def __init__(
        self,
        form: nn.Module,
        mode: str | None = None,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        super().__init__()
        self.form = form
        self._run: Any = torch.compile(
            form, dynamic=False, fullgraph=True, mode=mode, backend=backend
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        with _compiling():
            # Another memory order would be compiled again, too.
            rows: Tensor = self._run(clips.contiguous())
        return rows


@contextmanager
def _compiling() -> Iterator[None]:
    """Settings for one call; any call may compile, and only the compiler knows which does."""
    import torch._inductor.config as inductor

    dynamo: Any = torch._dynamo.config
    # By default the compiler gives up after eight shapes; halving batches leads to more. Its own
    # processes would start in the current folder, where a stray module of the user's would be
    # taken for one of torch's.
    with (
        dynamo.patch(recompile_limit=_MOST_SHAPES, accumulated_recompile_limit=_MOST_SHAPES),
        inductor.patch(compile_threads=1),
        _explained(),
    ):
        yield


@contextmanager
def _explained() -> Iterator[None]:
    """Name the remedy when a form cannot be made; a lack of memory stays one."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, UsageError):
        raise
    except Exception as error:  # anything that two compilers, the system's and CUDA can raise
        if is_out_of_memory(error):
            raise torch.OutOfMemoryError(first_line(error)) from error
        raise UsageError(
            f"--runtime compiled: torch cannot compile this backbone: {first_line(error)}",
            remedy="Use --runtime torch; compiling needs a C++ compiler, on CUDA Triton too.",
            option="runtime",
            value="compiled",
        ) from error


class Recording(NamedTuple):
    """Kernels recorded for one shape of clips.

    Attributes:
        replay: Launches them.
        clips: Where they read.
        rows: Where they write.
    """

    replay: Callable[[], None]
    clips: Tensor
    rows: Tensor


class GraphedForm(nn.Module):
    """A backbone on a CUDA device whose kernels are recorded once and launched all at once.

    The next call of the same shape overwrites the rows: copy them on the same stream.

    Args:
        form: Any backbone, on its device; it is used, not copied.
        record: Records the form's kernels for clips of one shape.
    """

    def __init__(
        self, form: nn.Module, record: Callable[[nn.Module, Tensor], Recording] | None = None
    ) -> None:
        super().__init__()
        self.form = form
        self._record = record or record_graph
        self._recordings: dict[tuple[int, ...], Recording] = {}

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, D)."""
        shape = tuple(clips.shape)
        if shape not in self._recordings:
            with _explained():
                self._recordings[shape] = self._record(self.form, clips)
        recording = self._recordings[shape]
        recording.clips.copy_(clips)
        recording.replay()
        return recording.rows

    def release(self) -> None:
        """Free the memory of all recordings."""
        self._recordings.clear()


def record_graph(form: nn.Module, clips: Tensor) -> Recording:
    """Record a form's kernels for clips like these as a CUDA graph."""
    with torch.cuda.device(clips.device):
        place = clips.clone(memory_format=torch.contiguous_format)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                form(place)
        graph = torch.cuda.CUDAGraph()
        # Capturing waits for the warm-up by itself. By default it would use a stream of whichever
        # device came first. Other threads page-lock memory meanwhile; stricter modes forbid it.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            rows = form(place)
    return Recording(graph.replay, place, rows)


_TELEMETRY = "openvino_telemetry"
_ONE_AT_A_TIME = threading.RLock()
_cores: list[Any] = []


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from reporting to its maker that it was imported or has converted a model.

    It uses a separate package for that, without asking, and works without it.
    """
    with _ONE_AT_A_TIME:
        known = sys.modules.get(_TELEMETRY)
        # None marks a module as not importable, which the stubs of Python do not know.
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
        with _without_telemetry():
            import openvino
    except (ImportError, OSError, RuntimeError) as error:
        raise DependencyError(
            f"--runtime openvino: {error}.",
            remedy="pip install 'tspcli[openvino]', or use --runtime torch.",
            option="runtime",
            value="openvino",
        ) from error
    return openvino


def _core() -> Any:
    """The process's only OpenVINO core, which is never destroyed.

    Every core that compiles for CPUs gives its thread a signal stack. When destroyed, it unmaps
    that stack and restores the previous one, even if that belonged to another core and is unmapped
    as well: the next signal then kills the process without a message.
    """
    with _ONE_AT_A_TIME:
        if not _cores:
            _cores.append(import_openvino().Core())
    return _cores[0]


class OpenVinoForm(nn.Module):
    """A backbone that OpenVINO runs; compiled for a shape of clips when it first occurs.

    Args:
        backbone: Any backbone, in float32 on a CPU; it is not changed.

    Raises:
        DependencyError: If OpenVINO is not installed.
        UsageError: When called, if OpenVINO cannot run the backbone.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self._openvino = import_openvino()
        # In a list, so that this module has no parameters that could be moved to another device.
        self._plain = [copy.deepcopy(backbone).eval().requires_grad_(False)]
        self._converted: dict[tuple[int, ...], Any] = {}
        self._compiled: dict[tuple[int, ...], Any] = {}

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) float32 to (B, D)."""
        shape = tuple(clips.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(clips)
        [rows] = self._compiled[shape]([clips.contiguous().numpy()]).values()
        # The array belongs to the request, which the next call overwrites.
        return torch.from_numpy(rows.copy())

    def _compile(self, clips: Tensor) -> Any:
        shape = tuple(clips.shape[1:])
        if shape not in self._converted:
            self._converted[shape] = self._convert(shape)
        model = self._converted[shape].clone()
        # Fixed shapes run faster than open ones.
        model.reshape(list(clips.shape))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            # The default is bf16 on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return _core().compile_model(model, "CPU", settings)

    def _convert(self, shape: tuple[int, ...]) -> Any:
        """The backbone for any number of clips of one shape."""
        # Two clips, because a single one would be taken for a constant.
        example = torch.zeros(2, *shape)
        sizes = ({0: torch.export.Dim("clips")},)
        try:
            with torch.inference_mode(False), warnings.catch_warnings(), _without_telemetry():
                warnings.simplefilter("ignore")
                exported = torch.export.export(self._plain[0], (example,), dynamic_shapes=sizes)
                return self._openvino.convert_model(exported)
        except Exception as error:  # anything that two compilers can raise
            raise UsageError(
                f"OpenVINO cannot run this backbone: {first_line(error)}",
                remedy="Use --runtime torch.",
                option="runtime",
                value="openvino",
            ) from error
