"""All that has to be seen once on a GPU: is it right, and how fast; in under ten minutes.

    python -m benchmarks.gpu [--only env,rows,…] [--budget 540] [--autotune]
                             [--json FILE] [--markdown FILE] [--dry]

``make bench-gpu`` runs it. It needs no network. Every part is a process of its own with a time
limit, so that a crash or a hang costs that part alone; what there is no time for is stated as not
measured. ``--dry`` runs the same parts on a CPU, in this process, with a tiny encoder and a
second of video: whether they work, not how fast. On a new machine begin with ``--only env,rows``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import encoder as encoder_part
from benchmarks import encoders, frames, training, whole
from benchmarks.decode import generate
from benchmarks.figures import Figure, in_turns, len_cores, machine, markdown, show
from benchmarks.roofs import bandwidth_bytes_per_s, products
from tests.builders.videos import repeat_video
from tests.extraction.reference import relative_error
from tspcli.core.devices import resolve_device
from tspcli.core.text import first_line
from tspcli.encoders import load_encoder
from tspcli.encoders.cudnn_fused import CudnnConvolution
from tspcli.encoders.fused import FoldedConv
from tspcli.encoders.precision import DTYPES, arithmetic, resolve_precision
from tspcli.errors import UsageError
from tspcli.extraction import extract
from tspcli.extraction.run_report import ExtractReport
from tspcli.pretraining.training_recipe import Execution
from tspcli.store import open_store
from tspcli.video import Finished, VideoFile

ROW_BARS = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2, "bf16": 3e-2}
"""How far rows may be from the CPU's, by precision."""
LOSS_BARS = {"fp32": 1e-3, "bf16": 5e-2}
ACTIVITYNET_H = 650
SIZES = {"360p": (480, 360), "720p": (1280, 720)}
_STEPS = 5
_LEAST_S = 10
"""With less time left, a part is not begun."""


@dataclass(frozen=True)
class Bench:
    """What every part is given.

    Attributes:
        device: The GPU; the CPU in a dry run.
        folder: For videos and stores.
        dry: Whether only the code is tried, in its smallest form.
        autotune: Whether torch's compiler tries all of its kernels, which takes minutes.
    """

    device: torch.device
    folder: Path
    dry: bool
    autotune: bool = False

    @property
    def backbone(self) -> str:
        return "tiny" if self.dry else "r2plus1d_34"

    @property
    def encoder_of(self) -> dict[str, Any]:
        """As :func:`load_encoder` takes it; the weights ``tiny`` take small frames."""
        return {"weights": "tiny"} if self.dry else whole.random_weights(self.backbone)

    @property
    def batch(self) -> int:
        return 2 if self.dry else 64

    @property
    def rounds(self) -> int:
        return 1 if self.dry else 7

    def video(self, size: str = "360p", repeats: int = 1) -> Path:
        """A generated video of 20 seconds, repeated."""
        once = self.folder / f"{size}.mp4"
        if not once.exists():
            generate(once, 1 if self.dry else 20, SIZES[size])
        long = self.folder / f"{size}-{repeats}.mp4"
        return once if repeats == 1 else repeat_video(once, long, repeats)

    def folder_of(self, count: int) -> Path:
        """A folder with so many videos."""
        place = self.folder / f"{count} videos"
        place.mkdir(exist_ok=True)
        for number in range(count):
            link = place / f"v{number}.mp4"
            if not link.exists():
                link.symlink_to(self.video())
        return place


def env(bench: Bench) -> Iterator[Figure]:
    """What the machine can do at most."""
    for precision in ROW_BARS:
        what = f"matmul rate, {precision}"
        try:
            resolve_precision(precision, bench.device)
            flop, ways = products(bench.device, DTYPES[precision])
            with torch.inference_mode(), arithmetic(bench.device, precision):
                times = in_turns(ways, bench.rounds, training.settled_s)
        except (UsageError, RuntimeError) as error:
            yield Figure.missing("env", what, "", first_line(error))
        else:
            yield Figure("env", what, flop / min(times.values()) / 1e12, "TFLOP/s")
    rate = bandwidth_bytes_per_s(bench.device, bench.rounds) / 1e12
    yield Figure("env", "memory, read and written", rate, "TB/s")


def rows(bench: Bench) -> Iterator[Figure]:
    """Rows in every arithmetic, compared with the CPU's in float32."""
    chosen: list[tuple[str, str | None]] = [("tiny", None)]
    if not bench.dry:
        chosen.append(("random", "r2plus1d_18"))
    for weights, backbone in chosen:
        on_cpu = load_encoder(weights, backbone=backbone, device="cpu", precision="fp32")
        height, width = on_cpu.preprocessing.crop
        coarse = torch.rand(32, 3, 7, 7, generator=torch.Generator().manual_seed(0))
        pictures = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
        clips = (pictures.clamp(0, 1) * 255).permute(0, 2, 3, 1).unflatten(0, (2, 16))
        expected = on_cpu.encode_frames(clips).numpy()
        for precision, bar in ROW_BARS.items():
            what = f"rows of {backbone or weights} in {precision}, error against the CPU's"
            try:
                encoder = load_encoder(
                    weights, backbone=backbone, device=bench.device, precision=precision
                )
                found = encoder.encode_frames(clips).numpy()
            except (UsageError, RuntimeError) as error:
                yield Figure.missing("rows", what, "", first_line(error))
                continue
            yield Figure.below("rows", what, relative_error(found, expected), bar, "")


def forms(bench: Bench) -> Iterator[Figure]:
    """The encoder's forms side by side: eager, fused, graph, and last those that take minutes."""
    precision = "fp32" if bench.dry else "bf16"
    # That graphs fail in a dry run is a line of the table; a compiler takes too long for one.
    compiled = [] if bench.dry else [n for n in encoder_part.STATIC_FORMS if "compiled" in n]
    if not bench.autotune:
        compiled = [name for name in compiled if "max-autotune" not in name]
    recorded = [name for name in encoder_part.STATIC_FORMS if "compiled" not in name]

    def measured(static: Sequence[str]) -> list[Figure]:
        return encoders.on_gpu(
            bench.backbone, bench.device, bench.rounds, bench.batch, precision, static
        )

    yield from measured(recorded)
    encoder = load_encoder(**bench.encoder_of, device=bench.device, precision=precision)
    fused = whole.encoded_alone(encoder, bench.batch, bench.rounds + 1)
    convolutions = [m for m in encoder.form.modules() if isinstance(m, FoldedConv)]
    choices = [used for m in convolutions for used in m.on_cudnn.uses_fused]
    for module in convolutions:
        module.on_cudnn = CudnnConvolution(fuse=False)
    apart = whole.encoded_alone(encoder, bench.batch, bench.rounds + 1)
    what = f"{bench.backbone}, {precision}, cuDNN's fused kernels, compared with separate ones"
    note = f"{fused:.0f} clips/s, separate {apart:.0f}; {sum(choices)} of {len(choices)} fused"
    yield Figure("forms", what, fused / apart, "times", note=note)
    loaded = load_encoder(**bench.encoder_of, device=bench.device)
    yield from encoders.sharing(loaded, time.perf_counter)
    if compiled:
        yield from measured(compiled)[1:]  # the first is that of the form itself, as above


def halving(bench: Bench) -> Iterator[Figure]:
    """A run whose batches do not fit: halved, with the same rows."""
    what = "batches halved for lack of memory: error of the rows"
    encoder = load_encoder(**bench.encoder_of, device=bench.device)
    on_cuda = bench.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    expected, _ = _extracted(bench, "whole", encoder=encoder, batch_size=bench.batch)
    if on_cuda:
        encoder.release()
        most = torch.cuda.max_memory_allocated(bench.device)
        total = torch.cuda.get_device_properties(bench.device).total_memory
        torch.cuda.set_per_process_memory_fraction(0.6 * most / total, bench.device)
    else:
        encoder.form.register_forward_pre_hook(partial(_refuse, 1))
    found, report = _extracted(bench, "halved", encoder=encoder, batch_size=bench.batch)
    if on_cuda:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    notes = [note for note in report.notes if "memory" in note]
    if not notes:
        yield Figure.missing("halving", what, "", "no batch was halved")
        return
    error = relative_error(found, expected)
    yield Figure.below("halving", what, error, 1e-2, "", note=" ".join(notes))


def _refuse(largest: int, form: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    if len(inputs[0]) > largest:
        raise torch.OutOfMemoryError("out of memory, in a dry run")


def shared(bench: Bench) -> Iterator[Figure]:
    """Two processes on one device, as where several users share it."""
    one, alone = _extracted(bench, "one", device=str(bench.device), **bench.encoder_of)
    names = f"{bench.device},{bench.device}"
    two, both = _extracted(bench, "two", device=names, **bench.encoder_of)
    rates = [report.n_clips / report.elapsed_s for report in (alone, both)]
    note = f"{rates[1]:.0f} clips/s, one process {rates[0]:.0f}, both with their start"
    what = "two processes on one device: error of the rows"
    yield Figure.below("shared", what, relative_error(two, one), 1e-2, "", note=note)


def _extracted(bench: Bench, name: str, **options: Any) -> tuple[np.ndarray, ExtractReport]:
    """The rows of some videos in the order of their names, and the run's report."""
    out = bench.folder / f"{name}.h5"
    report = extract(bench.folder_of(2 if bench.dry else 8), out, **options)
    with open_store(out) as store:
        return np.concatenate([store[key].rows[:] for key in sorted(store)]), report


def end_to_end(bench: Bench) -> Iterator[Figure]:
    """Whole runs, compared with decoding alone and encoding alone."""
    videos = [bench.video(repeats=6)]
    runtimes = ("torch",) if bench.dry else ("torch", "compiled")
    seconds = 0.1 if bench.dry else 15.0
    yield from whole.on_gpu(videos, bench.encoder_of, bench.device, seconds, runtimes)


def hardware(bench: Bench) -> Iterator[Figure]:
    """Decoding in hardware beside the CPU's processes."""
    # A dry run states why there is none.
    device = torch.device("cuda") if bench.dry else bench.device
    yield from frames.hardware(bench.video(), bench.rounds, device)


def losses(bench: Bench) -> Iterator[Figure]:
    """Losses of training steps, compared with the CPU's, and the steps' rate."""
    side = 32 if bench.dry else 112
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 16, side, side, 3), dtype=torch.uint8, generator=chance)

    def of(device: torch.device, precision: str) -> np.ndarray:
        product = training.Product("tiny", device, precision, Execution())
        return np.array([product.step(pixels) for _ in range(_STEPS)])

    expected = of(torch.device("cpu"), "fp32")
    for precision, bar in LOSS_BARS.items() if not bench.dry else [("fp32", LOSS_BARS["fp32"])]:
        what = f"losses of {_STEPS} training steps in {precision}, error against the CPU's"
        error = float(np.max(np.abs(of(bench.device, precision) / expected - 1)))
        yield Figure.below("losses", what, error, bar, "")
    backbone, size = ("tiny", 2) if bench.dry else ("r2plus1d_18", 32)
    batch = pixels[:1].repeat(size, 1, 1, 1, 1)
    for precision in ("fp32",) if bench.dry else ("fp32", "tf32", "bf16"):
        product = training.Product(backbone, bench.device, precision, Execution())
        step = {"step": partial(product.step, batch)}
        rate = size / in_turns(step, bench.rounds, training.settled_s)["step"]
        yield Figure("losses", f"training {backbone} in {precision}, batch {size}", rate, "clips/s")


def hours(bench: Bench) -> Iterator[Figure]:
    """All of ActivityNet by count: the slower of decoding it and encoding it, both measured."""
    encoder = load_encoder(**bench.encoder_of, device=bench.device)
    clips_per_s = whole.encoded_alone(encoder, bench.batch, bench.rounds + 1)
    sampling = encoder.sampling
    encoding_h = ACTIVITYNET_H * float(sampling.frame_rate) / sampling.stride / clips_per_s
    cores = 1 if bench.dry else len_cores()
    on_device = bench.device.type != "cpu"
    n_files = 1 if bench.dry else 4 * cores
    for size in SIZES:
        files = [VideoFile(bench.video(size), f"v{i}") for i in range(n_files)]
        video_s_per_s = frames.pool_rate(
            files, cores, encoder.frame_spec, _length_s, decoder="pyav", as_yuv=on_device
        )
        decoding_h = ACTIVITYNET_H / video_s_per_s
        note = f"decoding {decoding_h:.2f} h with {cores} cores, encoding {encoding_h:.2f} h"
        what = f"ActivityNet ({ACTIVITYNET_H} h) at {size} by count, {bench.backbone}"
        total = max(decoding_h, encoding_h)
        if size == "360p":
            yield Figure.below("hours", what, total, 1, "h", note=note)
        else:
            yield Figure("hours", what, total, "h", note=note)


def _length_s(ended: Finished) -> float:
    return ended.n_ticks / 30


Part = Callable[[Bench], Iterable[Figure]]
PARTS: dict[str, tuple[Part, float]] = {
    "env": (env, 40),
    "rows": (rows, 60),
    "forms": (forms, 150),
    "halving": (halving, 60),
    "shared": (shared, 60),
    "end": (end_to_end, 150),
    "hardware": (hardware, 60),
    "losses": (losses, 60),
    "hours": (hours, 60),
}
"""Each with the seconds that it may take, in the order of what is to be known first."""


def measure(name: str, bench: Bench, place: Path) -> None:
    """Run a part and append a JSON line for each figure as soon as it is known."""
    with place.open("a", encoding="utf-8") as file:
        for figure in PARTS[name][0](bench):
            file.write(json.dumps(asdict(figure)) + "\n")
            file.flush()


def isolated(name: str, place: Path, limit_s: float, flags: Sequence[str]) -> str:
    """Run a part in a process of its own.

    Returns:
        Why it ended early, or nothing.
    """
    words = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--json", str(place), *flags]
    log = place.with_suffix(".log")
    with log.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(words, stdout=output, stderr=output, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"ended after {limit_s:.0f} s"
    if not done.returncode:
        return ""
    said = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(said) if line.strip()), f"status {done.returncode}")


def run(names: Sequence[str], budget_s: float, dry: bool, flags: Sequence[str]) -> list[Figure]:
    """The figures of some parts, with a line for each that ended early."""
    began = time.monotonic()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            place = Path(folder) / f"{name}.jsonl"
            place.touch()
            limit_s = min(PARTS[name][1], budget_s - (time.monotonic() - began))
            if limit_s < _LEAST_S:
                problem = "no time was left"
            elif dry:
                problem = ""
                try:
                    measure(name, Bench(torch.device("cpu"), Path(folder), dry=True), place)
                except Exception as error:  # whatever it is: the other parts go on
                    problem = f"{type(error).__name__}: {first_line(error)}"
            else:
                problem = isolated(name, place, limit_s, flags)
            figures = [Figure(**json.loads(line)) for line in place.read_text().splitlines()]
            if problem:
                figures.append(Figure.missing(name, f"the rest of the part {name}", "", problem))
            print(f"\n== {name} ({time.monotonic() - began:.0f} s)", flush=True)
            show(figures)
            found += figures
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--autotune", action="store_true", help="max-autotune, too: minutes")
    parser.add_argument("--dry", action="store_true", help="on a CPU, in the smallest form")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--markdown", type=Path, help="write the table")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    names = options.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown parts: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    cv2.setNumThreads(1)
    if options.part:
        device = torch.device("cpu") if options.dry else resolve_device(options.device)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(device, Path(folder), options.dry, options.autotune)
            measure(options.part, bench, options.json)
        return
    if not options.dry:
        resolve_device(options.device)
    flags = ["--device", options.device, *(["--autotune"] if options.autotune else [])]
    found = run(names, options.budget, options.dry, flags)
    table = f"{machine()}\n\n{markdown(found)}"
    print(f"\n{table}")
    if options.markdown is not None:
        options.markdown.write_text(table, encoding="utf-8")
    if options.json is not None:
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": machine(),
            "dry": options.dry,
            "figures": [asdict(figure) for figure in found],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if any(figure.what.startswith("the rest of") for figure in found):
        raise SystemExit("Some parts ended early.")


if __name__ == "__main__":
    main()
