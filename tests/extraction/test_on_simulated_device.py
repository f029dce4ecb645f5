"""The unchanged extraction on a simulated GPU: its rows are the CPU's, whatever runs when.

Each call that orders the work between threads and streams is left out once, to see that the
simulation would notice.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.builders.simulated_accelerator import Machine, Order
from tests.builders.simulated_torch import simulated
from tspcli.encoders import Encoder, load_encoder
from tspcli.encoders.runtimes import GraphedForm
from tspcli.extraction import extract
from tspcli.extraction.run_report import ExtractReport
from tspcli.extraction.transports import ChildTransport
from tspcli.store import open_store

OPTIONS: dict[str, Any] = {"stride": 4, "workers": 1}


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
    largest_batch: int = 8,
) -> ExtractReport:
    """Extract on a simulated device; only the run itself is counted."""
    with simulated(machine):
        encoder = load_encoder("random", backbone="tiny", seed=1, device=device, precision="fp32")
        encoder.form.register_forward_pre_hook(partial(refuse_more, largest_batch))
        if largest_batch >= 8:
            # Fused kernels are tried with the first batch of a shape, which waits for them.
            with torch.inference_mode():
                encoder.encode(torch.zeros(8, 3, 16, 112, 112))
        if graph:
            encoder.form = GraphedForm(encoder.form)
        # The constants of normalisation are copied once, and waited for.
        encoder.prepare(torch.zeros(1, 112, 112, 3))
        machine.counts.clear()
        machine.waits.clear()
        return extract(sources, out, encoder=encoder, batch_size=8, **OPTIONS)


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
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, order: Order, graph: bool
) -> None:
    machine = Machine(order=order, seed=3)
    run(machine, sources, tmp_path / "f.h5", graph=graph)
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5
    # No thread waits for the device but for its rows.
    assert not machine.waits
    assert machine.counts["copies"] and machine.counts["freed"]


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
        **{**OPTIONS, "workers": 2},
    )
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_batches_are_halved_until_they_fit(
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, graph: bool
) -> None:
    machine = Machine(order="random")
    report = run(machine, sources, tmp_path / "f.h5", graph=graph, largest_batch=4)
    assert any("batches of 4" in note for note in report.notes)
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5


@pytest.mark.parametrize(
    ("without", "order"),
    [
        ("wait_event", "late"),
        ("record_stream", "side streams first"),
        ("synchronize", "late"),
    ],
)
def test_a_call_that_is_left_out_is_noticed(
    sources: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, without: str, order: Order
) -> None:
    run(Machine(order=order, without=(without,)), sources, tmp_path / "f.h5")
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) > 1e-2


def test_the_simulation_refuses_what_a_device_refuses() -> None:
    with simulated(Machine(n_devices=2)) as machine:
        one, other = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
        for wrong in (lambda: one + other, lambda: one + torch.ones(3), one.numpy):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert not machine.waits
        assert (one + 1).sum().item() == 6
        assert machine.waits == {"_local_scalar_dense": 1}
