"""Compiled, recorded and OpenVINO forms compute what the plain backbones compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.networks import clips, relative, shaken
from tests.builders.videos import make_video
from tspcli.encoders import load_encoder
from tspcli.encoders.backbones import build_backbone
from tspcli.encoders.fused import inference_form
from tspcli.encoders.runtimes import (
    CompiledForm,
    GraphedForm,
    OpenVinoForm,
    Recording,
    static_form,
)
from tspcli.errors import DependencyError, UsageError
from tspcli.extraction import extract
from tspcli.sampling import Sampling
from tspcli.store import open_store

CPU = torch.device("cpu")


@pytest.fixture
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")  # a graph can be recorded nowhere else


class Tiny(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (2 * x).mean((2, 3, 4))


def errors(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    found, expected = found.float().cpu(), expected.float().cpu()
    return (found - expected).norm(dim=1) / expected.norm(dim=1)


def test_compiled_equals_the_plain_module() -> None:
    torch.manual_seed(7)
    plain = shaken(build_backbone("tiny"))
    form = static_form(inference_form(plain, CPU, torch.float32), CPU)
    assert isinstance(form, CompiledForm)
    with torch.inference_mode():
        x = clips(3, 16, 64)
        before = x.clone()
        assert errors(form(x), plain(x)).max() <= 1e-5
        # The same clips as they lie in a batch of frames: nothing is compiled again.
        other = x.transpose(1, 2).contiguous().transpose(1, 2)
        with torch.compiler.set_stance("fail_on_recompile"):
            assert errors(form(other), plain(x)).max() <= 1e-5
        assert torch.equal(x, before)


def test_any_number_of_shapes_and_kinds_of_tensors() -> None:
    import torch._inductor.config as inductor

    threads: list[int] = []

    class Watched(Tiny):
        """A class of its own: the compiler counts shapes by code."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> Any:
        threads.append(inductor.compile_threads)
        return graph.forward

    settings: Any = torch._dynamo.config
    form = CompiledForm(Watched(), backend=backend)
    for count in range(1, settings.recompile_limit + 3):
        x = torch.rand(count, 3, 2, 4, 4)
        assert errors(form(x), 2 * x.mean((2, 3, 4))).max() <= 1e-6
        with torch.inference_mode():
            # One of the mode's own tensors is another kind, for which all is compiled again.
            form(x.clone())
    # In no processes of the compiler's own, whichever call it was that compiled.
    assert len(threads) > settings.recompile_limit and set(threads) == {1}


class Branching(torch.nn.Module):
    """Nobody can compile it: the way through it depends on the values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3)) if x.sum() > 0 else x.amax((1, 2, 3))


def test_what_cannot_be_compiled_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        CompiledForm(Branching())(clips(2, 4, 8))
    assert caught.value.data == {"option": "runtime", "value": "compiled"}
    assert "--runtime torch" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_is_not_the_compilers(error: Exception) -> None:
    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> Any:
        def exhausted(*inputs: torch.Tensor) -> None:
            raise error

        return exhausted

    torch.compiler.reset()
    with pytest.raises(torch.OutOfMemoryError):
        CompiledForm(Tiny(), backend=backend)(clips(2, 4, 8))


def played(form: torch.nn.Module, clips: torch.Tensor) -> Recording:
    """Stands in for a CUDA graph: the same work on the same memory."""
    place = torch.zeros_like(clips)
    rows = form(place)
    return Recording(lambda: rows.copy_(form(place)), place, rows)  # type: ignore[arg-type, return-value]  # what it returns is not used


def test_an_encoder_that_is_released_forgets_what_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = load_encoder("tiny", device="cpu")
    made: list[int] = []

    def record(form: torch.nn.Module, clips: torch.Tensor) -> Recording:
        made.append(len(clips))
        return played(form, clips)

    monkeypatch.setattr(encoder, "form", GraphedForm(Tiny(), record))
    x = torch.rand(2, 3, 16, 8, 8)
    for _ in range(2):
        encoder.encode(x)
    encoder.release()
    encoder.encode(x)
    assert made == [2, 2]


def test_extraction_compiles_once_and_leaves_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (make_video(tmp_path / f"{name}.mp4", fps=30, n_frames=90) for name in "ab")
    plain, both = tmp_path / "plain.h5", tmp_path / "both.h5"
    extract([one, two], plain, weights="tiny", device="cpu", workers=1)
    extract(one, both, weights="tiny", device="cpu", workers=1)
    encoder = load_encoder("tiny", device="cpu", runtime="compiled")
    sizes: list[int] = []
    real = encoder.encode_async
    monkeypatch.setattr(
        encoder, "encode_async", lambda clips: (sizes.append(len(clips)), real(clips))[1]
    )
    report = extract([one, two], both, encoder=encoder, workers=1, batch_size=4)
    assert {video.key: video.status for video in report.videos} == {"a": "kept", "b": "done"}
    assert report.runtime == "compiled"
    assert sizes == [4]  # Three clips: the batch is filled up.
    with open_store(plain) as expected, open_store(both) as found:
        assert found.metadata.settings == expected.metadata.settings
        np.testing.assert_allclose(found["b"].rows, expected["b"].rows, rtol=1e-4, atol=1e-5)


def test_what_is_recorded_is_played_with_the_clips_that_come() -> None:
    made: list[int] = []

    def record(form: torch.nn.Module, clips: torch.Tensor) -> Recording:
        made.append(len(clips))
        if len(clips) > 4:
            raise torch.OutOfMemoryError("out of memory")
        if len(clips) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return played(form, clips)

    form = GraphedForm(Tiny(), record)
    with torch.inference_mode():
        for count in (4, 4, 2, 4):
            x = torch.rand(count, 3, 2, 8, 8)
            assert errors(form(x), 2 * x.mean((2, 3, 4))).max() <= 1e-6
        assert made == [4, 2]
        with pytest.raises(torch.OutOfMemoryError):
            form(torch.rand(8, 3, 2, 8, 8))
        with pytest.raises(UsageError) as caught:
            form(torch.rand(3, 3, 2, 8, 8))
        assert caught.value.data["option"] == "runtime"
        form.release()
        form(x)
    assert made == [4, 2, 8, 3, 4]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_recorded_equals_eager(cuda: None, precision: str) -> None:
    eager = load_encoder("random", backbone="r2plus1d_18", device="cuda", precision=precision)
    encoder = load_encoder(
        "random", backbone="r2plus1d_18", device="cuda", precision=precision, runtime="compiled"
    )
    bar = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2}[precision]
    for _ in range(2):
        frames = torch.rand(4, 16, 112, 112, 3) * 255
        assert errors(encoder.encode_frames(frames), eager.encode_frames(frames)).max() <= bar


@pytest.mark.gpu
def test_rows_in_flight_are_not_overwritten(cuda: None) -> None:
    encoder = load_encoder("tiny", device="cuda", runtime="compiled")
    first, second = (torch.randn(4, 3, 16, 112, 112) for _ in range(2))
    waits = [encoder.encode_async(x) for x in (first, second)]
    rows = [wait() for wait in waits]
    for x, found in zip((first, second), rows, strict=True):
        assert errors(found, encoder.encode(x)).max() <= 1e-3


@pytest.fixture
def openvino() -> None:
    try:
        OpenVinoForm(torch.nn.Identity())
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["tiny", "r3d_18", "i3d"])
def test_openvino_equals_the_plain_module(openvino: None, name: str) -> None:
    torch.manual_seed(7)
    plain = shaken(build_backbone(name))
    form = OpenVinoForm(plain)
    # Complete batches, the last one of a run, and clips of another shape.
    shapes = [(3, 16, 32), (1, 16, 32)] if name != "tiny" else [(3, 16, 64), (2, 8, 80)]
    with torch.inference_mode():
        for count, frames, size in (*shapes, shapes[0]):
            x = clips(count, frames, size)
            before = x.clone()
            assert errors(form(x), plain(x)).max() <= 1e-5
            assert torch.equal(x, before)


def test_rows_are_not_overwritten_by_the_next_batch(openvino: None) -> None:
    form = OpenVinoForm(shaken(build_backbone("tiny")))
    x = clips(2, 16, 64)
    with torch.inference_mode():
        first = form(x)
        kept = first.clone()
        form(x.flip(0))
    assert torch.equal(first, kept)


def test_a_store_holds_the_same_rows_whichever_runtime_adds_to_it(
    openvino: None, tmp_path: Path
) -> None:
    one, two = (make_video(tmp_path / f"{name}.mp4", fps=30, n_frames=90) for name in "ab")
    torch_rows, both = tmp_path / "torch.h5", tmp_path / "both.h5"
    extract([one, two], torch_rows, weights="tiny", device="cpu", workers=1)
    extract(one, both, weights="tiny", device="cpu", workers=1)
    report = extract([one, two], both, weights="tiny", workers=1, runtime="openvino")
    assert {video.key: video.status for video in report.videos} == {"a": "kept", "b": "done"}
    assert report.to_dict()["runtime"] == "openvino"
    loaded = load_encoder("tiny", runtime="openvino")
    assert extract(one, tmp_path / "own.h5", encoder=loaded, workers=1).runtime == "openvino"
    with open_store(torch_rows) as expected, open_store(both) as found:
        assert found.metadata.settings == expected.metadata.settings
        rows, theirs = (torch.from_numpy(store["b"].rows[:]) for store in (found, expected))
    assert rows.shape == theirs.shape and relative(rows, theirs) <= 1e-5


def test_openvino_reports_nothing_and_leaves_signals_alone(openvino: None) -> None:
    """One process for both, as importing OpenVINO takes long.

    The fault handler lets signals run on a stack of their own, which OpenVINO replaces.
    """
    code = (
        "import faulthandler, gc, os, signal, sys, torch\n"
        "from tspcli.encoders.runtimes import OpenVinoForm\n"
        "faulthandler.enable()\n"
        "came = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: came.append(1))\n"
        "forms = [OpenVinoForm(torch.nn.Conv3d(3, 4, 3)) for _ in range(3)]\n"
        "rows = [form(torch.zeros(1, 3, 4, 8, 8)) for form in forms]\n"
        "for _ in range(3):\n"
        "    del forms[0]\n"
        "    gc.collect()\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "reports = [name for name in sys.modules if 'telemetry' in name and 'stub' not in name\n"
        "           and not name.startswith('openvino.tools')]\n"
        "print(len(came), 'openvino' in sys.modules, reports)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["3 True []"]), done.stderr


def test_without_openvino_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError) as caught:
        load_encoder("tiny", device="cpu", runtime="openvino")
    assert caught.value.data == {"option": "runtime", "value": "openvino"}
    assert "tspcli[openvino]" in str(caught.value.remedy)


def test_openvino_replaces_the_form_that_torch_would_have(openvino: None) -> None:
    overlapping = Sampling(stride=1)
    assert load_encoder("tiny", device="cpu").supports_series(overlapping)
    for fast in (True, False):
        encoder = load_encoder("tiny", device="cpu", runtime="openvino", fast=fast)
        assert isinstance(encoder.form, OpenVinoForm)
        assert not encoder.supports_series(overlapping)


def test_a_backbone_that_openvino_cannot_run_is_named(openvino: None) -> None:
    with pytest.raises(UsageError) as caught:
        OpenVinoForm(Branching())(clips(2, 4, 8))
    assert caught.value.data == {"option": "runtime", "value": "openvino"}
