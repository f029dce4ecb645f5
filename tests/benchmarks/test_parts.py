"""Every part of the benchmark runs to its end; what it measures is not looked at."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    encoder,
    encoders,
    frames,
    growth,
    layers,
    libraries,
    official,
    scaling,
    training,
    whole,
)
from benchmarks.__main__ import attempt, show_layers, training_figures
from benchmarks.encoder import count_flop
from benchmarks.figures import Figure, markdown
from tests.builders.videos import make_video, read_number
from tests.video.fake_decoders import FAKES
from tspcli.encoders import build_backbone, load_encoder
from tspcli.encoders.backbones import backbone_spec
from tspcli.errors import VideoError
from tspcli.pretraining.training_recipe import Execution
from tspcli.sampling import Sampling
from tspcli.video import Finished, Frames, VideoFile, open_source, sampled_frames
from tspcli.video.messages import DecodeSpan


def test_training_reads_within_a_short_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled parts run as they are traced; compiling them takes long and is tested elsewhere.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    video = tmp_path / "short.mp4"
    make_video(video, fps=30, n_frames=150)
    (tmp_path / "cache").mkdir()
    rows = training.run(
        argparse.Namespace(backbone="tiny", batch=2, steps=1),
        torch.device("cpu"),
        video,
        tmp_path,
    )
    assert {str(row["part"]).partition(":")[0] for row in rows} == {
        "reading",
        "step",
        "reading and step",
    }
    assert all(float(row["clips_per_s"]) > 0 for row in rows)
    assert rows[-1]["part"] == "reading and step: from the cache, fp32 channels-last"
    # On a CPU nothing reads so slowly, and the machine is not its own.
    assert not any("of_step" in row for row in rows)
    # Only the literal loop itself is held against nothing.
    figures = training_figures(rows)
    assert len(figures) == sum("literal" not in str(row["part"]) for row in rows)
    assert all(figure.roof and figure.roof > 0 and figure.roof_name for figure in figures)
    *_, share, beside = training_figures([*rows[:-1], rows[-1] | {"of_step": 0.8}])
    assert share.what == f"{rows[-1]['part']}, share of the step alone"
    assert (share.target, share.met, share.value) == ("at least 0.9", False, 0.8)
    assert beside.unit == "times"


@pytest.mark.parametrize("fps", [25, 30, 60])
def test_the_original_reading_of_any_frame_rate(tmp_path: Path, fps: int) -> None:
    video = make_video(tmp_path / "v.mp4", fps=fps, n_frames=4 * fps, width=320, height=240)
    reading = frames.OldReading(video)
    with open_source(video, "pyav") as source:
        ours = sampled_frames(source, Sampling())
        samples = {
            tick // 2: read_number(sampled.frame.rgb())
            for sampled in ours
            for tick in sampled.ticks
        }
    assert reading.n_ticks == ours.n_ticks == 120
    assert len(reading.starts_s) == 12
    start = round(reading.starts_s[-1] * 15)
    numbers: list[int] = []

    def number(pictures: list[np.ndarray]) -> torch.Tensor:
        numbers.extend(read_number(picture) for picture in pictures)
        return torch.empty(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "preprocess", number)
        reading.clip(reading.starts_s[-1])
    assert len(numbers) == 16
    # It begins at a float's floor and ours at the nearest frame: one frame apart at most.
    expected = [samples[start + sample] for sample in range(16)]
    assert np.abs(np.subtract(numbers, expected)).max() <= 1


def test_growth_of_three_lengths() -> None:
    kinds = ((1, 2), (1, 4), (2, 4))
    found = growth.measure(kinds, torch.device("cpu"), time.perf_counter, turns=1)
    # 30 ticks a second of video give 15 samples; a batch of four clips is not counted.
    assert [clips for _, clips in found.points] == [0, 0, 2]
    assert all(seconds > 0 for seconds, _ in found.points) and min(found.peaks_mb) > 50


@pytest.mark.parametrize("power", [0.8, 1.0, 1.3])
def test_a_power_is_found_whatever_ending_takes(power: float) -> None:
    clips = (10_000, 100_000, 1_000_000)
    points = [(0.3 + 1e-4 * count**power, count) for count in clips]
    assert growth.Growth(points, []).power == pytest.approx(power, abs=0.03)
    assert math.isnan(growth.Growth(points[::-1], []).power)


def test_both_programs_read_one_checkpoint(tmp_path: Path) -> None:
    module = build_backbone("tiny")
    weights = official.save_weights(tmp_path / "prepared", module)
    loaded = load_encoder(weights, backbone="tiny", device="cpu")
    state = loaded.module.features.state_dict()
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_the_documented_table_of_scaling_is_what_the_simulation_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scaling"])
    scaling.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1")]
    told = (Path(__file__).parents[2] / "docs" / "notes" / "scaling.md").read_text().splitlines()
    assert len(rows) == 16
    assert [line for line in told if line.startswith(("| 1 |", "| 16 |"))] == rows


def test_an_encoder_stands_beside_the_matmul_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "speedup": {"eager": 1.0, "fast": 1.5, "openvino": 1.8},
        "share_of_roof": {"eager": 0.5, "fast": 0.75, "openvino": 0.9},
        "clips_per_s": {"fast": 3.0},
        "roof_gflop_per_s": 400.0,
        "relative_error": 1e-7,
    }
    monkeypatch.setattr(encoder, "measure", lambda *_, **__: row)
    found = encoders._on_cpu("r2plus1d_18", 1, 1.45, torch.device("cpu"), 1, lambda: 0.0)
    assert [figure.cells[1:] for figure in found] == [
        ("1.5 times", "0.75 of the matmul rate (2)", "at least 1.45 times", "yes"),
        ("1.8 times", "0.90 of the matmul rate (2)", "at least 1.6 times", "yes"),
    ]


def test_a_form_that_does_not_work_is_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(form: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        raise RuntimeError("no | compiler\nof any kind")

    forms = {"compiled": broken, "CUDA graph": lambda form, _: form}
    monkeypatch.setattr(encoder, "STATIC_FORMS", forms)
    real = encoder.measure
    monkeypatch.setattr(
        encoder,
        "measure",
        lambda name, batch, device, precision, *more, **options: real(
            name, 1, device, precision, *more, **options
        ),
    )
    found = encoders.on_gpu("tiny", torch.device("cpu"), 1)
    assert len(found) == 3
    assert found[0].target == "at least 0.55"
    assert found[1].cells[1] == "not measured: RuntimeError: no / compiler"
    assert found[2].value and found[2].unit == "clips/s" and found[2].roof
    assert markdown(found).count("\n") == 2 + len(found)


def test_what_sharing_saves_by_count() -> None:
    loaded = load_encoder("random", backbone="r3d_18", device="cpu", seed=0)
    operations = encoders.Operations(loaded)
    clips = torch.zeros(1, 3, 16, 112, 112)
    alone = operations.count(lambda: loaded.encode(clips))
    assert alone == count_flop(build_backbone("r3d_18"), clips)
    frames = torch.zeros(19, 3, 112, 112)
    four = operations.count(lambda: loaded.encode_series(frames, Sampling(stride=1)))
    assert alone < four < 4 * alone
    assert operations.count(lambda: None) == 0


def test_without_nvdec_the_table_says_why(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", fps=30, n_frames=30)
    found = frames.hardware(video, 1, torch.device("cuda"))
    if not torch.cuda.is_available():
        assert len(found) == 1
        assert all(figure.value is None and "GPU" in figure.note for figure in found)
    assert all(figure.target == "at least 1 times" for figure in found)


def test_without_a_video_from_the_hardware_there_is_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes go on when the threads end, and their rate is not the hardware's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(frames, "DecodePool", ToldPool)
    [figure] = frames.hardware(tmp_path / "v.mp4", 1, torch.device("cuda"))
    assert figure.value is None
    assert "torchcodec-cuda" in figure.note


class ToldPool:
    """A decode pool that tells of videos of 60 frames in chunks of so many, a second each."""

    clock_s = 0.0
    n_chunks, n_each = 3, 10

    def __init__(self, files: list[VideoFile], workers: int, **options: object) -> None:
        self.files, self.workers = files, workers

    def __enter__(self) -> ToldPool:
        return self

    def __iter__(self) -> Iterator[Frames | Finished]:
        ticks = [(i,) for i in range(self.n_each)]
        for number, file in enumerate(self.files):
            span = DecodeSpan(number % self.workers, 0.0, 0.0)
            chunk = Frames(file, ticks, np.zeros(1), self.pass_time, span)
            yield from [chunk] * self.n_chunks
            yield Finished(file, 60, "pyav", (), Fraction(0), Fraction(2), 60, 60)

    def __exit__(self, *exc_info: object) -> None:
        pass

    @classmethod
    def pass_time(cls, frames: Frames) -> None:
        cls.clock_s += 1.0


def test_a_rate_while_all_workers_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "DecodePool", ToldPool)
    monkeypatch.setattr(frames.time, "perf_counter", lambda: ToldPool.clock_s)
    monkeypatch.setattr(frames.time, "process_time", lambda: ToldPool.clock_s / 2)
    files = [VideoFile(Path("v.mp4"), f"v{i}") for i in range(4)]
    # A chunk stands for 20 frames of the source and takes a second.
    rate, own = frames.steady_rate(files, 1)
    assert (rate, own) == (pytest.approx(20), pytest.approx(0.5))
    monkeypatch.setattr(ToldPool, "n_each", 20)  # all of 10 frames a second are handed over
    assert frames.steady_rate(files, 2)[0] == pytest.approx(20)
    monkeypatch.setattr(ToldPool, "n_chunks", 1)
    with pytest.raises(ValueError, match="end before all workers have begun"):
        frames.steady_rate(files[:1], 1)


def test_a_backbone_that_shares_nothing_has_no_figure_of_it() -> None:
    loaded = load_encoder("random", backbone="mc3_18", device="cpu", seed=0)
    assert encoders.sharing(loaded, time.perf_counter) == []


def test_an_encoder_beside_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batched and one by one; without the library its figures are said to be missing."""

    def absent() -> libraries.Run:
        raise ImportError("no module named 'absent'")

    for make in (absent, lambda: build_backbone("tiny").eval()):
        monkeypatch.setitem(libraries.LIBRARIES, "tiny", ("absent", make))
        share, batched, alone = libraries.measure("tiny", 2, 1)
        assert share.value is not None and share.value > 0
        measured = [figure.value is not None for figure in (batched, alone)]
        assert measured == [make is not absent] * 2
        assert measured[0] or batched.note == "pip install absent"


def test_a_rate_is_not_that_of_another_decoder(tmp_path: Path) -> None:
    files = [VideoFile(make_video(tmp_path / "v.mp4", fps=30, n_frames=150), "v")]
    with pytest.raises(VideoError, match="raising: IndexError"):
        frames.pool_rate(files, 1, decoder=(FAKES["raising"], "pyav"))


def test_a_part_that_fails_does_not_end_the_others() -> None:
    def part() -> list[Figure]:
        raise RuntimeError("out of memory")

    [line], broken = attempt("extract", part)
    assert broken == ["extract"]
    assert line.cells[:2] == (
        "all of the part extract",
        "not measured: RuntimeError: out of memory",
    )
    figure = Figure("extract", "clips", 1.0)
    assert attempt("extract", lambda: [figure]) == ([figure], [])


def test_a_compiler_that_does_not_work_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: training.Product, pixels: torch.Tensor) -> float:
        if self.trainer.execution.compile:
            raise RuntimeError("no compiler")
        return 0.0

    monkeypatch.setattr(training.Product, "step", step)
    ways = {
        "plain": ("fp32", Execution()),
        "compiled": ("fp32", Execution(compile=True)),
    }
    products = {
        name: training.Product("tiny", torch.device("cpu"), *way) for name, way in ways.items()
    }
    training._leave_out_broken(products, ways, torch.zeros(0))
    assert list(products) == ["plain"]
    assert "compiled: not measured: RuntimeError: no compiler" in capsys.readouterr().out


def test_layers_stand_below_the_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text("| what |\n", encoding="utf-8")
    show_layers(
        argparse.Namespace(device="cpu", backbones="tiny,swin3d_t", rounds=1, markdown=table)
    )
    lines = table.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| what |"
    assert lines[2].startswith("tiny, bf16, batch 4: ")
    assert any(line.startswith("| all convolutions |") for line in lines)
    assert lines[-1].startswith("swin3d_t, convolution by convolution: not measured: ")


def test_every_convolution_is_timed_and_counted() -> None:
    device = torch.device("cpu")
    found, whole_s = layers.measure("tiny", 2, device, "fp32", 2)
    spec = backbone_spec("tiny")
    counted = count_flop(spec.build().eval(), torch.empty(2, 3, 16, 112, 112))
    # Planes that are filled up with zeros are computed too.
    assert 1 <= sum(layer.flop for layer in found) / counted < 1.5
    assert all(len(layer.times_s) == 2 for layer in found)
    assert 0 < sum(layer.time_s for layer in found) <= 1.1 * whole_s
    lines = layers.table(found, whole_s, 1e12, 1e10, layers.by_size)
    assert len(lines) == 2 + len({layers.by_size(layer) for layer in found}) + 2


def test_the_store_is_written_and_read_again() -> None:
    assert all(figure.value and math.isfinite(figure.value) for figure in whole.store(1))


@pytest.mark.slow
def test_the_quick_form_runs_whole(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--markdown", str(table)],
        check=True,
        timeout=1800,
    )
    assert "whole run" in table.read_text(encoding="utf-8")
