"""A backbone in OpenVINO's runtime, for CPUs where that is faster than torch: docs/encoders.md."""

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

from tspcli.errors import DependencyError, UsageError
from tspcli.wording import first_line

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
