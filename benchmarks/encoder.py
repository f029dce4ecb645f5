"""Encoders side by side: plain eager, channels-last, and the form that extraction runs.

    python -m benchmarks.encoder [--backbones r2plus1d_34,r2plus1d_18,r3d_18] [--batches 1,4]
                                 [--device auto] [--precision auto] [--rounds 5] [--json FILE]

The variants take turns, round by round, so that a machine whose speed drifts slows all of them;
each figure is the median of the rounds, and a ratio that of two such medians. Beside them stands
the roof: the rate of a large matrix product in the same dtype, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.encoder import _DTYPES, _arithmetic, resolve_device, resolve_precision
from tspcli.encoders.fast import inference_form

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def count_flop(module: nn.Module, clip: Tensor) -> float:
    """Floating-point operations of convolutions and linear layers, two a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        shape = torch.empty(clip.shape)
        ghost = copy.deepcopy(module).to("meta")
    with FlopCounterMode(display=False) as counter:
        ghost(shape)
    return float(counter.get_total_flops())


def measure(name: str, batch: int, device: torch.device, precision: Any, rounds: int) -> Any:
    """Medians of one backbone at one batch size."""
    torch.manual_seed(0)
    spec = backbone_spec(name)
    dtype = _DTYPES[precision]
    plain = spec.build().eval()
    height, width = spec.preprocessing.crop
    frames = torch.randn(batch, spec.sampling.clip_length, height, width, 3)
    clips = frames.to(device, dtype).permute(0, 4, 1, 2, 3)
    flop = count_flop(plain, clips)
    eager = copy.deepcopy(plain).to(device, dtype)
    last = copy.deepcopy(eager).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    fast = inference_form(plain, device, dtype)
    ordered = clips.contiguous()
    side = MATMUL_SIZE[device.type]
    left = torch.randn(side, side, device=device, dtype=dtype)
    runs: dict[str, Callable[[], Any]] = {
        "matmul": lambda: left @ left,
        "eager": lambda: eager(ordered),
        "channels_last": lambda: last(clips),
        "fast": lambda: fast(clips),
    }
    with torch.inference_mode(), _arithmetic(device, precision):
        expected = eager(ordered).float()
        error = ((fast(clips).float() - expected).norm() / expected.norm()).item()
        for run in runs.values():
            seconds(run, device)
        times: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(rounds):
            for key, run in runs.items():
                times[key].append(seconds(run, device))
    median = {key: statistics.median(values) for key, values in times.items()}
    roof = 2 * side**3 / median["matmul"]
    return {
        "backbone": name,
        "batch": batch,
        "device": str(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "clips_per_s": {k: batch / v for k, v in median.items() if k != "matmul"},
        "best_clips_per_s": {k: batch / min(v) for k, v in times.items() if k != "matmul"},
        "speedup": {k: median["eager"] / median[k] for k in ("channels_last", "fast")},
        "roof_gflop_per_s": roof / 1e9,
        "share_of_roof": {k: flop / v / roof for k, v in median.items() if k != "matmul"},
        "relative_error": error,
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
    options = parser.parse_args()
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    print("backbone       batch   clips/s (times eager, share of the matmul rate)")
    for name in options.backbones.split(","):
        for batch in map(int, options.batches.split(",")):
            row = measure(name, batch, device, precision, options.rounds)
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
