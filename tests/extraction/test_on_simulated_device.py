"""The unchanged extraction on a simulated GPU: its rows are the CPU's, whatever runs when.

Each call that orders the work between threads and streams is left out once, to see that the rows
are then wrong.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.ordering_calls import ORDERING_CALLS, WITHOUT_DATA, ordering_calls
from tests.builders.simulated_accelerator import Machine, Order
from tests.builders.simulated_torch import simulated
from tests.builders.videos import make_video
from tspcli.encoders import Encoder, load_encoder
from tspcli.encoders.runtimes import GraphedForm, record_graph
from tspcli.encoders.shared_clips import SharedVideoResNet
from tspcli.extraction import extract
from tspcli.extraction.run_report import ExtractReport
from tspcli.extraction.transports import ChildTransport
from tspcli.store import open_store

OPTIONS: dict[str, Any] = {"stride": 4, "workers": 1}
BATCH = 4


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 6, 6 and 1 clips."""
    folder = tmp_path_factory.mktemp("sources")
    for name, fps, n_frames in [("a", 30, 72), ("b", 25, 60), ("short", 30, 12)]:
        make_video(folder / f"{name}.mp4", fps=fps, n_frames=n_frames, width=96, height=64)
    return folder


@pytest.fixture(scope="module")
def on_cpu(
    sources: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Rows by key, as a CPU computes them."""
    out = tmp_path_factory.mktemp("cpu") / "f.h5"
    extract(sources, out, encoder=encoder, **OPTIONS)
    return rows_of(out)


def rows_of(store: Path) -> dict[str, np.ndarray]:
    with open_store(store) as features:
        return {key: features[key].rows[:] for key in features}


def refuse_more(largest: int, form: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    if len(inputs[0]) > largest:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def run(
    machine: Machine,
    sources: Path,
    out: Path,
    *,
    device: str = "cuda",
    graph: bool = False,
    largest_batch: int = BATCH,
) -> ExtractReport:
    """Extract on a simulated device; only the run itself is counted."""
    with simulated(machine):
        encoder = load_encoder("random", backbone="tiny", seed=1, device=device, precision="fp32")
        encoder.form.register_forward_pre_hook(partial(refuse_more, largest_batch))
        if largest_batch >= BATCH:
            # Fused kernels are tried with the first batch of a shape, which waits for them.
            with torch.inference_mode():
                encoder.encode(torch.zeros(BATCH, 3, 16, 112, 112))
        if graph:
            encoder.form = GraphedForm(encoder.form)
        # The constants of normalisation are copied once, and waited for.
        encoder.prepare(torch.zeros(1, 112, 112, 3))
        machine.counts.clear()
        machine.waits.clear()
        return extract(sources, out, encoder=encoder, batch_size=BATCH, **OPTIONS)


def worst(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest relative error of a row; infinite if it is not finite."""
    assert found.keys() == expected.keys()
    errors = [
        np.linalg.norm(found[key] - expected[key], axis=1) / np.linalg.norm(expected[key], axis=1)
        for key in expected
    ]
    return float(np.nan_to_num(np.concatenate(errors), nan=np.inf).max())


@pytest.mark.parametrize(
    ("order", "graph"),
    [("late", False), ("side streams first", False), ("random", False), ("random", True)],
)
def test_rows_are_the_cpus(
    sources: Path,
    on_cpu: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    order: Order,
    graph: bool,
) -> None:
    shared: list[int] = []
    share = SharedVideoResNet.forward

    def watched(*args: Any) -> torch.Tensor:
        rows = share(*args)
        shared.append(len(rows))
        return rows

    monkeypatch.setattr(SharedVideoResNet, "forward", watched)
    machine = Machine(order=order, seed=3)
    run(machine, sources, tmp_path / "f.h5", graph=graph)
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5
    # No thread waits for the device but for its rows.
    assert not machine.waits
    assert machine.counts["copies"] and machine.counts["freed"]
    # Overlapping clips share, unless they are too few for a batch or kernels are recorded.
    assert shared == ([] if graph else [BATCH, BATCH])


def test_a_device_that_is_not_the_current_one(
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path
) -> None:
    machine = Machine(n_devices=2, order="random", seed=1)
    run(machine, sources, tmp_path / "f.h5", device="cuda:1")
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5
    assert not machine.default[0].queue


def test_two_devices(
    sources: Path,
    on_cpu: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each in a process of its own, which has the simulation as well."""
    monkeypatch.setattr(ChildTransport, "module", "tests.extraction.simulated_worker")
    extract(
        sources,
        tmp_path / "f.h5",
        weights="random",
        backbone="tiny",
        seed=1,
        device="cuda:0,cuda:1",
        precision="fp32",
        batch_size=BATCH,
        **{**OPTIONS, "workers": 2},
    )
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_batches_are_halved_until_they_fit(
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, graph: bool
) -> None:
    machine = Machine(order="random")
    report = run(machine, sources, tmp_path / "f.h5", graph=graph, largest_batch=2)
    assert any("batches of 2" in note for note in report.notes)
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5


@pytest.mark.parametrize(("without", "order"), ORDERING_CALLS["extraction"].items())
def test_a_call_that_is_left_out_is_noticed(
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, without: str, order: Order
) -> None:
    machine = Machine(order=order, without=(without,))
    run(machine, sources, tmp_path / "f.h5")
    assert machine.left_out
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) > 1e-2


@pytest.mark.parametrize("without", [(), tuple(ORDERING_CALLS["recording a graph"])])
def test_a_graph_is_warmed_up_with_the_clips_at_hand(without: tuple[str, ...]) -> None:
    """Kernels that are chosen by trying them are tried then."""
    rows: list[torch.Tensor] = []

    class Doubling(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            rows.append(clips * 2)
            return rows[-1]

    with simulated(Machine(order="side streams first", without=without)) as machine:
        record_graph(Doubling(), torch.ones(2, device="cuda"))
        assert machine.left_out == len(without)
        assert rows[0].isnan().all().item() == bool(without)


def test_frames_may_be_overwritten_once_they_are_prepared(encoder: Encoder) -> None:
    """Even page-locked ones, whose copy the device makes when it likes."""
    expected = encoder.prepare(torch.full((1, 112, 112, 3), 7.0))
    with simulated(Machine()):
        on_gpu = load_encoder("random", backbone="tiny", seed=1, device="cuda", precision="fp32")
        frames = torch.empty((1, 112, 112, 3), pin_memory=True).fill_(7.0)
        prepared = on_gpu.prepare(frames)
        frames.fill_(200.0)
        torch.testing.assert_close(prepared.cpu(), expected)


def test_every_ordering_call_is_left_out_by_a_test() -> None:
    known = {call for calls in ORDERING_CALLS.values() for call in calls}
    assert ordering_calls() == known | WITHOUT_DATA


def test_the_memory_of_a_graph() -> None:
    """It holds nothing of use before each replay, and is others' memory once the graph is gone."""
    with simulated(Machine()):
        one = torch.ones(2, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            made = torch.empty(4, device="cuda")
            made[:2].copy_(one)
            passing = one * 3
            kept = passing.block, passing.memory  # type: ignore[attr-defined]
            rows = passing + 1
        for _ in range(2):
            graph.replay()
            assert made.isnan().tolist() == [False, False, True, True]
            made.zero_()
        memory = rows.memory  # type: ignore[attr-defined]
        del rows
        graph.replay()
        torch.accelerator.synchronize()
        assert memory.tolist() == [4, 4]
        del graph
        torch.accelerator.synchronize()
        assert memory.isnan().all()
        assert kept[1].tolist() == [3, 3]
        del passing, kept


def test_the_simulation_refuses_what_a_device_refuses() -> None:
    with simulated(Machine(n_devices=2)) as machine:
        one, other = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
        for wrong in (lambda: one + other, lambda: one + torch.ones(3), one.numpy):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert not machine.waits
        assert (one + 1).sum().item() == 6
        assert machine.waits == {"_local_scalar_dense": 1}
