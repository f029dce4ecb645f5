"""Encoders side by side: plain eager, channels-last, and the form that extraction runs.

    python -m benchmarks.encoder [--backbones r2plus1d_34,r2plus1d_18,r3d_18] [--batches 1,4]
                                 [--device auto] [--precision auto] [--rounds 5] [--cpu-time]
                                 [--json FILE]

The variants take turns, round by round, so that a machine whose speed drifts slows all of them;
each figure is the median of the rounds, and a ratio that of two such medians. Beside them stands
the roof: the rate of a large matrix product in the same dtype, measured in the same rounds, by
torch's matmul or as a 1x1 convolution, whichever is fastest (on AMD processors matmul is not).

All variants keep the memory that they freed, as extraction does on a CPU; what they are compared
with is eager without that, which follows. On a machine that others use too, --cpu-time counts the
processor time of one thread instead.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.roofs import products
from tspcli.core.devices import resolve_device
from tspcli.core.text import first_line
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.fused import inference_form
from tspcli.encoders.precision import DTYPES, arithmetic, resolve_precision
from tspcli.encoders.runtimes import CompiledForm, GraphedForm, OpenVinoForm, static_form
from tspcli.extraction.batch_encoder import kept_memory

Clock = Callable[[], float]
STATIC_FORMS: dict[str, Callable[[nn.Module, torch.device], nn.Module]] = {
    "compiled": lambda form, _: CompiledForm(form),
    "compiled, max-autotune": lambda form, _: CompiledForm(form, "max-autotune-no-cudagraphs"),
    "CUDA graph": lambda form, _: GraphedForm(form),
    "compiled, CUDA graph (--runtime compiled)": static_form,
}
"""Forms for batches of one size, which a device may gain by."""


def seconds(run: Callable[[], Any], device: torch.device, clock: Clock) -> float:
    """Time of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def count_flop(module: nn.Module, clip: Tensor) -> float:
    """Floating-point operations of convolutions and linear layers, two a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        shape = torch.empty(clip.shape)
        ghost = copy.deepcopy(module).to("meta")
    with FlopCounterMode(display=False) as counter:
        ghost(shape)
    return float(counter.get_total_flops())


def measure(
    name: str,
    batch: int,
    device: torch.device,
    precision: Any,
    rounds: int,
    clock: Clock,
    with_channels_last: bool = True,
    with_openvino: bool = False,
    static: Sequence[str] = (),
) -> Any:
    """Medians of one backbone at one batch size.

    All forms, and eager too, run with the memory that extraction keeps on CPUs. The speedups are
    those beside eager without it, as torch is by itself.

    What of the forms for static batches does not work here stands under ``failed``, with its words.
    """
    torch.manual_seed(0)
    spec = backbone_spec(name)
    dtype = DTYPES[precision]
    plain = spec.build().eval()
    height, width = spec.preprocessing.crop
    frames = torch.randn(batch, spec.sampling.clip_length, height, width, 3)
    clips = frames.to(device, dtype).permute(0, 4, 1, 2, 3)
    flop = count_flop(plain, clips)
    eager = copy.deepcopy(plain).to(device, dtype)
    if with_channels_last:
        last = copy.deepcopy(eager).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # stubs lack it
    fast = inference_form(plain, device, dtype)
    ordered = clips.contiguous()
    product_flop, runs = products(device, dtype)
    ways = list(runs)
    runs["eager"] = lambda: eager(ordered)
    if with_channels_last:
        runs["channels_last"] = lambda: last(clips)
    runs["fast"] = lambda: fast(clips)
    if with_openvino and find_spec("openvino") is not None:
        other = OpenVinoForm(plain)
        runs["openvino"] = lambda: other(clips)
    failed: dict[str, str] = {}
    with torch.inference_mode(), arithmetic(device, precision), kept_memory():
        for form in static:
            try:
                run = partial(STATIC_FORMS[form](fast, device), clips)
                run()
            except Exception as error:  # whatever a compiler may say: the others are still measured
                failed[form] = f"{type(error).__name__}: {first_line(error)}"
            else:
                runs[form] = run
        # The first run of each is not counted.
        expected = runs["eager"]().float()
        errors = {
            form: ((runs[form]().float() - expected).norm() / expected.norm()).item()
            for form in ("fast", "openvino", *STATIC_FORMS)
            if form in runs
        }
        for form, run in runs.items():
            if form != "eager" and form not in errors:
                run()
        times: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(rounds):
            for key, run in runs.items():
                times[key].append(seconds(run, device, clock))
    with torch.inference_mode(), arithmetic(device, precision):
        # Torch as it is gives the memory of every layer back to the system. The first of these runs
        # is not counted: it finds none of the memory that was kept until now.
        eager_s = [seconds(runs["eager"], device, clock) for _ in range(max(2, rounds))][1:]
    median = {key: statistics.median(values) for key, values in times.items()}
    roof = product_flop / min(median.pop(way) for way in ways)
    return {
        "backbone": name,
        "batch": batch,
        "device": str(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "clips_per_s": {k: batch / v for k, v in median.items()},
        "best_clips_per_s": {k: batch / min(times[k]) for k in median},
        "speedup": {k: statistics.median(eager_s) / v for k, v in median.items()},
        "roof_gflop_per_s": roof / 1e9,
        "share_of_roof": {k: flop / v / roof for k, v in median.items()},
        "relative_error": max(errors.values()),
        "errors": errors,
        "failed": failed,
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", default="r2plus1d_34,r2plus1d_18,r3d_18")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append a line a measurement to this file")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    options = parser.parse_args()
    clock = time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
        clock = time.process_time
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    print("backbone       batch   clips/s (times eager, share of the matmul rate)")
    for name in options.backbones.split(","):
        for batch in map(int, options.batches.split(",")):
            row = measure(name, batch, device, precision, options.rounds, clock)
            cells = [
                f"{form} {row['clips_per_s'][form]:.3g}"
                f" (x{row['speedup'].get(form, 1.0):.2f}, {row['share_of_roof'][form]:.2f})"
                for form in ("eager", "channels_last", "fast")
            ]
            print(f"{name:14s} {batch:5d}   " + "   ".join(cells), flush=True)
            if options.json is not None:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
