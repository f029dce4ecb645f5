"""Decoding in hardware beside the processes, on a simulated GPU: the rows are the CPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.ordering_calls import ORDERING_CALLS
from tests.builders.simulated_accelerator import Machine, Order
from tests.builders.simulated_torch import simulated
from tests.builders.videos import make_video
from tests.extraction.test_on_simulated_device import OPTIONS, rows_of, worst
from tests.video.fake_decoders import HARDWARE
from tests.video.stand_in_torchcodec import StandInTorchcodec, Surface
from tspcli.encoders import Encoder, load_encoder
from tspcli.extraction import extract
from tspcli.extraction.run_report import ExtractReport
from tspcli.video import DECODERS


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video, which a thread takes before a process has started."""
    folder = tmp_path_factory.mktemp("long")
    make_video(folder / "long.mp4", n_frames=90, width=96, height=64)
    return folder


@pytest.fixture(scope="module")
def on_cpu(
    long: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("cpu") / "f.h5"
    extract(long, out, encoder=encoder, **OPTIONS)
    return rows_of(out)


def run(machine: Machine, videos: Path, out: Path, torchcodec: StandInTorchcodec) -> ExtractReport:
    torchcodec.on_device = True
    with simulated(machine):
        encoder = load_encoder("random", backbone="tiny", seed=1, device="cuda", precision="fp32")
        return extract(videos, out, encoder=encoder, batch_size=8, decoder="hardware", **OPTIONS)


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> StandInTorchcodec:
    stand_in = StandInTorchcodec()
    stand_in.install(monkeypatch)
    monkeypatch.setitem(DECODERS, "hardware", HARDWARE)
    return stand_in


@pytest.mark.parametrize("order", ["late", "random", "side streams first"])
def test_rows_are_the_cpus(
    long: Path,
    on_cpu: dict[str, np.ndarray],
    tmp_path: Path,
    torchcodec: StandInTorchcodec,
    order: Order,
) -> None:
    machine = Machine(order=order, seed=2)
    report = run(machine, long, tmp_path / "f.h5", torchcodec)
    assert [video.decoder for video in report.videos] == ["hardware"]
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5
    # The gate compares planes on the host; nobody else waits.
    assert set(machine.waits) <= {"copy to the CPU", "copy from the CPU"}


def test_a_video_that_fails_half_way_is_decoded_by_a_process(
    long: Path, on_cpu: dict[str, np.ndarray], tmp_path: Path, torchcodec: StandInTorchcodec
) -> None:
    def fail(name: str, number: int, surface: Surface) -> Any:
        if number == 80:
            raise RuntimeError("CUDA error: decoding failed")

    torchcodec.spoil = fail
    report = run(Machine(), long, tmp_path / "f.h5", torchcodec)
    assert [video.decoder for video in report.videos] == ["pyav"]
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) < 1e-5


@pytest.mark.parametrize(("without", "order"), ORDERING_CALLS["hardware decoding"].items())
def test_a_call_that_is_left_out_is_noticed(
    long: Path,
    on_cpu: dict[str, np.ndarray],
    tmp_path: Path,
    torchcodec: StandInTorchcodec,
    without: str,
    order: Order,
) -> None:
    machine = Machine(order=order, without=(without,))
    run(machine, long, tmp_path / "f.h5", torchcodec)
    assert machine.left_out
    assert worst(rows_of(tmp_path / "f.h5"), on_cpu) > 1e-2
