"""Backbones compiled for batches of one size compute what they do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.networks import clips, shaken
from tests.builders.videos import make_video
from tspcli.encoders import load_encoder
from tspcli.encoders.backbones import build_backbone
from tspcli.encoders.fused import inference_form
from tspcli.encoders.runtimes import CompiledForm, GraphedForm, static_form
from tspcli.errors import UsageError
from tspcli.extraction import extract
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

    class Watching(Tiny):
        """A class of its own: the compiler counts shapes by code."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    settings: Any = torch._dynamo.config

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> Any:
        threads.append(inductor.compile_threads)
        return graph.forward

    form = CompiledForm(Watching())
    form._run = torch.compile(form.form, dynamic=False, fullgraph=True, backend=backend)
    for count in range(1, settings.recompile_limit + 3):
        x = torch.rand(count, 3, 2, 4, 4)
        assert errors(form(x), 2 * x.mean((2, 3, 4))).max() <= 1e-6
        with torch.inference_mode():
            # One of the mode's own tensors is another kind, for which all is compiled again.
            form(x.clone())
    # In no processes of the compiler's own, whichever call it was that compiled.
    assert len(threads) > settings.recompile_limit and set(threads) == {1}


def test_what_cannot_be_compiled_is_named() -> None:
    class Bending(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3)) if x.sum() > 0 else x.amax((1, 2, 3))

    with pytest.raises(UsageError, match=r"cannot run this backbone so: .*--runtime torch"):
        CompiledForm(Bending())(clips(2, 4, 8))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_is_not_the_compilers(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Exhausted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    form = CompiledForm(Tiny())
    monkeypatch.setattr(form, "_run", Exhausted())
    with pytest.raises(torch.OutOfMemoryError):
        form(clips(2, 4, 8))


def test_a_device_that_halves_its_batch_forgets_what_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = load_encoder("tiny", device="cpu")
    form = GraphedForm(Tiny())
    form._recorded[(64,)] = None  # type: ignore[assignment]  # no graph is needed to forget it
    monkeypatch.setattr(encoder, "form", form)
    encoder.release()
    assert not form._recorded


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


class Recorded:
    """Stands in for a CUDA graph: the same work on the same memory."""

    def __init__(self, form: torch.nn.Module, place: torch.Tensor) -> None:
        self.form, self.place = form, place
        self.rows = form(place)

    def replay(self) -> None:
        self.rows.copy_(self.form(self.place))


def test_what_is_recorded_is_played_with_the_clips_that_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def record(form: GraphedForm, clips: torch.Tensor) -> Any:
        made.append(len(clips))
        if len(clips) > 4:
            raise torch.OutOfMemoryError("out of memory")
        if len(clips) == 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        graph = Recorded(form.form, torch.zeros_like(clips))
        return graph, graph.place, graph.rows

    monkeypatch.setattr(GraphedForm, "_record", record)
    form = GraphedForm(Tiny())
    with torch.inference_mode():
        for count in (4, 4, 2, 4):
            x = torch.rand(count, 3, 2, 8, 8)
            assert errors(form(x), 2 * x.mean((2, 3, 4))).max() <= 1e-6
        assert made == [4, 2]
        with pytest.raises(torch.OutOfMemoryError):
            form(torch.rand(8, 3, 2, 8, 8))
        with pytest.raises(UsageError, match=r"is capturing.*--runtime torch"):
            form(torch.rand(3, 3, 2, 8, 8))
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
