"""Whole runs: extraction beside the plain way and the original script; how cost grows; start-up."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import official
from benchmarks.extract import clip_by_clip
from benchmarks.figures import Figure, in_turns, len_cores
from benchmarks.frames import pool_rate
from tests.builders.videos import make_video
from tests.extraction.reference import relative_error
from tspcli.core.progress import Reporter
from tspcli.core.text import first_line
from tspcli.encoders import Encoder, load_encoder
from tspcli.errors import TspError
from tspcli.extraction import RunFigures, extract
from tspcli.extraction.batch_encoder import kept_memory
from tspcli.sampling import Sampling
from tspcli.store import open_store, write_store
from tspcli.store.merge import merge_stores
from tspcli.store.schema import StoreMetadata
from tspcli.video import Finished, VideoFile

Clock = Callable[[], float]
_ROWS, _WIDTH = 1000, 512


def measure(
    videos: list[Path],
    backbone: str,
    device: torch.device,
    checkout: Path | None,
    clock: Clock,
    stride: int = 16,
) -> list[Figure]:
    """Extraction of videos beside the plain way and, if it is there, the original script."""
    plain = load_encoder("random", backbone=backbone, seed=0, device="cpu", fast=False)
    name = f"{backbone}, stride {stride}, whole run"
    roof = _encoder_alone(backbone, device) if device.type == "cpu" else None
    with tempfile.TemporaryDirectory() as folder:
        out, prepared = Path(folder) / "f.h5", Path(folder) / "prepared"
        weights = official.save_weights(prepared, plain.module.features)
        # As a command, since the script is one too: starting counts for both.
        began = clock()
        done = official.run_python(
            "-m", "tspcli", "extract", "--weights", str(weights), "--backbone", backbone,
            "--device", str(device), "--stride", str(stride), "--out", str(out), "--json",
            *(word for video in videos for word in ("--videos", str(video))),
        )  # fmt: skip
        ours_s = clock() - began
        report = json.loads(done.stdout)
        with open_store(out) as store:
            rows = {key: store[key].rows[:] for key in store}
        figures = [
            Figure(
                "extract", name, report["clips"] / report["elapsed_s"], "clips/s",
                roof=roof, roof_name="the encoder alone",
                note=f"{report['video_s'] / report['elapsed_s']:.1f} times real time, limited by "
                f"{report['bottleneck']}; the encoder waited {report['decode_wait_s']:.1f} s of "
                f"{report['elapsed_s']:.1f}",
            )
        ]  # fmt: skip
        if device.type == "cpu" and clock is time.perf_counter:
            # The command tells its wall time alone.
            began = clock()
            for video in videos:
                clip_by_clip(video, plain, stride)
            plain_s = clock() - began
            # The plain way's encoder is loaded before it begins: no starting on either side.
            assert roof is not None
            figures.append(
                Figure(
                    "extract", f"{name}, beside one clip at a time",
                    plain_s / report["elapsed_s"], "times",
                    roof=plain_s * roof / report["clips"], roof_name="the encoder alone",
                )
            )  # fmt: skip
        what = f"{name}, beside the original script"
        if checkout is None:
            command = "make bench BENCH_FLAGS='--official PATH_OF_ITS_CHECKOUT'"
            return [*figures, Figure.missing("extract", what, "at least 2 times", command)]
        official.prepare(prepared, videos, plain.module.features, backbone)
        taken, said = [], []
        for workers in (0, 6):
            pickles = Path(folder) / f"official{workers}"
            began = clock()
            official.extract(
                checkout, prepared, backbone, pickles, stride=stride, device=str(device),
                workers=workers,
            )  # fmt: skip
            taken.append(clock() - began)
            theirs = official.rows(pickles)
            error = max(_error(rows[key], theirs[key]) for key in rows)
            said.append(f"{taken[-1]:.1f} s with {workers} workers")
        n_rows, n_theirs = (sum(map(len, found.values())) for found in (rows, theirs))
        apart = f"rows differ by {error:.0e}"
        if n_rows != n_theirs:
            apart += f"; there are {n_rows}, the script made {n_theirs}"
        figure = Figure.at_least(
            "extract", what, min(taken) / ours_s, 2, "times",
            note=f"{ours_s:.1f} s; the script {', '.join(said)}; {apart}",
        )  # fmt: skip
        if roof is not None and clock is time.perf_counter:
            figure = figure.under(min(taken) * roof / report["clips"], "the encoder alone")
        figures.append(figure)
    return figures


def _encoder_alone(backbone: str, device: torch.device) -> float:
    """Clips a second of nothing but the encoder, in batches as a run on a CPU makes them."""
    with kept_memory():
        encoder = load_encoder("random", backbone=backbone, seed=0, device=device)
        return encoded_alone(encoder, 4, batches=5)


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    shared = min(len(ours), len(theirs))
    return relative_error(ours[:shared], theirs[:shared])


def random_weights(backbone: str) -> dict[str, Any]:
    """An encoder of a backbone, as :func:`load_encoder` takes it."""
    return {"weights": "random", "backbone": backbone, "seed": 0}


def on_gpu(
    videos: list[Path],
    encoder_of: Mapping[str, Any],
    device: torch.device,
    seconds: float = 40.0,
    runtimes: Sequence[str] = ("torch", "compiled"),
) -> Iterator[Figure]:
    """Runs of some seconds after their first batch, compared with decoder and encoder alone.

    Args:
        videos: Repeated as often as it takes.
        encoder_of: As :func:`load_encoder` takes it, such as :func:`random_weights`.
        device: Of the encoder.
        seconds: That a run should last.
        runtimes: Each measured.
    """
    cores = len_cores()
    decoded = each = 0.0
    for runtime in runtimes:
        name = encoder_of.get("backbone", encoder_of["weights"])
        what = f"{name}, end to end on a GPU, --runtime {runtime}"
        try:
            encoder = load_encoder(**encoder_of, device=device, runtime=runtime)
            encoded = encoded_alone(encoder, 64 if device.type == "cuda" else 4)
        except TspError as error:
            yield Figure.missing("extract", what, "", first_line(error))
            continue
        if not decoded:
            n_clips, first_rate = _clips_alone(_copies(videos, 4 * cores), encoder, cores)
            each = n_clips / (4 * cores)
            enough = _copies(videos, _at_least(first_rate * seconds / each))
            _, decoded = _clips_alone(enough, encoder, cores)
        roofs = {"decoding": decoded, "encoding": encoded}
        count = _at_least(min(roofs.values()) * seconds / each)
        yield from _end_to_end(what, encoder, _copies(videos, count), roofs)


def encoded_alone(encoder: Encoder, batch: int, batches: int = 20) -> float:
    """Clips a second of batch after batch; rows are waited for one batch later, as in a run.

    Of random frames: multiplying zeros takes a GPU less power, so that it runs faster.
    """
    height, width = encoder.preprocessing.crop
    length = encoder.sampling.clip_length
    clips = encoder.prepare(255 * torch.rand(length, height, width, 3)).transpose(0, 1)
    clips = clips[None].repeat(batch, 1, 1, 1, 1)
    encoder.encode(clips)
    encoder.encode(clips)
    began = time.perf_counter()
    wait = encoder.encode_async(clips)
    for _ in range(batches - 1):
        after = encoder.encode_async(clips)
        wait()
        wait = after
    wait()
    return batch * batches / (time.perf_counter() - began)


def _end_to_end(
    what: str, encoder: Encoder, files: list[VideoFile], roofs: dict[str, float]
) -> list[Figure]:
    """A run over the files, from its first batch on."""
    limit = min(roofs, key=lambda part: roofs[part])
    first = FirstBatch(time.perf_counter)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "videos"
        place.mkdir()
        for file in files:
            (place / f"{file.key}{file.path.suffix}").symlink_to(file.path)
        report = extract(place, Path(name) / "f.h5", encoder=encoder, reporter=first)
    assert first.progress is not None
    elapsed_s = report.elapsed_s - first.progress.elapsed_s
    rate = (report.n_clips - first.progress.n_clips) / elapsed_s
    hours = 650 * elapsed_s / (report.video_s - first.progress.video_s)
    said = f"{rate:.0f} clips/s; decoding alone {roofs['decoding']:.0f}, encoding alone "
    figures = [
        Figure.at_least(
            "extract", what, rate, 0.9 * roofs[limit], "clips/s",
            roof=roofs[limit], roof_name=f"{limit} alone", note=f"{said}{roofs['encoding']:.0f}",
        ),
        Figure.below(
            "extract", f"{what}, ActivityNet (650 h) with {len_cores()} cores", hours, 1, "h"
        ),
    ]  # fmt: skip
    if limit == "encoding":
        # Batch after batch without a pause it would have reached its own rate.
        idle = 100 * (1 - rate / roofs["encoding"])
        figures.append(Figure.below("extract", f"{what}, device idle", idle, 5, "%"))
    return figures


def _copies(videos: list[Path], count: int) -> list[VideoFile]:
    return [VideoFile(videos[i % len(videos)], f"v{i}") for i in range(count)]


def _at_least(count: float) -> int:
    return max(2 * len_cores(), math.ceil(count))


def _clips_alone(files: list[VideoFile], encoder: Encoder, workers: int) -> tuple[int, float]:
    """Clips of some videos, and clips a second of their frames as this encoder takes them."""
    counted: list[int] = []

    def n_clips(ended: Finished) -> int:
        counted.append(encoder.sampling.n_clips(ended.n_ticks))
        return counted[-1]

    rate = pool_rate(files, workers, encoder.frame_spec, n_clips)
    return sum(counted), rate


class FirstBatch(Reporter):
    """When the first batch was encoded, and the figures then; starting is not what grows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at_s: float | None = None
        self.n_clips = 0
        self.progress: RunFigures | None = None

    def advance(self, task: str, done: int, figures: Any = "") -> None:
        if self.at_s is None and figures.n_clips:
            self.at_s, self.n_clips = self._clock(), figures.n_clips
            self.progress = replace(figures)


def store(rounds: int) -> list[Figure]:
    """Writing, merging and reading features, beside writing the same bytes to the same disk."""
    rng = np.random.default_rng(0)
    rows = [(f"v{i}", rng.random((_ROWS, _WIDTH), np.float32), {}) for i in range(50)]
    n_bytes = sum(array.nbytes for _, array, _ in rows)
    metadata = StoreMetadata.build(sampling=Sampling(), encoder={"backbone": "none"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def plain() -> None:
            with open(folder / "plain", "wb") as file:
                for _, array, _ in rows:
                    file.write(array.tobytes())
                file.flush()
                os.fsync(file.fileno())

        def read() -> None:
            with open_store(folder / "s.h5") as store:
                for video in store.values():
                    video.checked_rows()

        def merge() -> None:
            merge_stores([folder / "s.h5"], folder / "m.h5", overwrite=True)

        ways = {
            "writing a store": lambda: write_store(folder / "s.h5", rows, metadata),
            "merging one": merge,
            "reading one, compared with its checksums": read,
        }
        ways["writing a store"]()
        times = in_turns({**ways, "plain": plain}, rounds)
    disk = n_bytes / times["plain"] / 1e6
    return [
        Figure(
            "store", what, n_bytes / times[what] / 1e6, "MB/s", roof=disk, roof_name="writing bytes"
        )
        for what in ways
    ]  # fmt: skip


def start_up() -> list[Figure]:
    """From the command to its help, and to the first clip."""

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = make_video(folder / "v.mp4", fps=30, n_frames=33)
        # As large as the released weights, and read as they are.
        large = load_encoder("random", backbone="r2plus1d_34", device="cpu", fast=False)
        checkpoint = official.save_weights(folder, large.module.features)
        os.sync()  # Nobody's weights are still on their way to the disk.
        weights = {"tiny": "tiny", "r2plus1d_34": str(checkpoint)}
        python_s = min(seconds("-c", "") for _ in range(3))
        libraries_s = min(
            seconds("-c", "import os, torch, av, cv2, h5py; os._exit(0)") for _ in range(3)
        )
        help_s = min(seconds("-m", "tspcli", "--help") for _ in range(3))
        first_s = {
            backbone: min(
                seconds(
                    "-m", "tspcli", "extract", "--weights", place, "--device", "cpu",
                    "--overwrite", "--videos", str(video), "--out", str(folder / "f.h5"),
                )
                for _ in range(4)
            )
            for backbone, place in weights.items()
        }  # fmt: skip
    return [
        Figure.below(
            "start", "tsp --help", help_s, 0.3, "s", roof=python_s, roof_name="Python alone"
        ),
        *(
            Figure.below(
                "start", f"tsp extract of one clip on the CPU, {backbone}, all of it", taken, 5,
                "s", roof=libraries_s, roof_name="importing the libraries alone",
            )
            for backbone, taken in first_s.items()
        ),
    ]  # fmt: skip
