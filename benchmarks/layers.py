"""Where an encoder's time goes, convolution by convolution, beside what the machine could do.

    python -m benchmarks.layers [--backbone r2plus1d_34] [--batch N] [--device auto]
                                [--precision auto] [--rounds 5] [--each]

Convolutions whose outputs have one size are a row, or with --each every one is. The roof of a
convolution is the longer of two times: its operations at the rate of a large matrix product, and
the bytes that it reads and writes (input, shortcut, filters, output) at the rate of a large copy.
Both are measured in the same run. Caches may beat the second on a CPU. What runs between the
convolutions (memory order, mean) is the last row.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.figures import machine
from benchmarks.roofs import bandwidth_bytes_per_s, products
from tspcli.core.devices import resolve_device
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.fused import FoldedConv, inference_form
from tspcli.encoders.precision import DTYPES, arithmetic, resolve_precision
from tspcli.extraction.batch_encoder import kept_memory


@dataclass
class Layer:
    """One convolution.

    Attributes:
        shape: Of its output, (B, T, H, W, C).
        flop: Floating-point operations of a batch.
        n_bytes: Read and written for a batch.
        times_s: One a round.
    """

    shape: tuple[int, ...]
    flop: float
    n_bytes: float
    times_s: list[float] = field(default_factory=list)

    @property
    def time_s(self) -> float:
        return statistics.median(self.times_s)


class Clock:
    """Marks on the device's own time line."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> Any:
        """Now; on a GPU, when it comes to this point."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def between_s(self, one: Any, other: Any) -> float:
        """Seconds from one mark to a later one."""
        if self._device.type != "cuda":
            return float(other - one)
        other.synchronize()
        return float(one.elapsed_time(other)) / 1000


def measure(
    name: str, batch: int, device: torch.device, precision: Any, rounds: int
) -> tuple[list[Layer], float]:
    """The convolutions of a backbone in the order in which they run.

    Returns:
        The layers, and the seconds of the whole batch (median).
    """
    spec = backbone_spec(name)
    dtype = DTYPES[precision]
    form = inference_form(spec.build().eval(), device, dtype)
    convs = [module for module in form.modules() if isinstance(module, FoldedConv)]
    if not convs:
        raise SystemExit(f"{name} has no form of its own whose convolutions could be timed.")
    filters = {conv: conv.weight.shape for conv in convs if conv.weight is not None}
    height, width = spec.preprocessing.crop
    clips = torch.randn(batch, spec.sampling.clip_length, height, width, 3)
    clips = clips.to(device, dtype).permute(0, 4, 1, 2, 3)
    clock = Clock(device)
    layers: dict[FoldedConv, Layer] = {}
    begun: dict[FoldedConv, Any] = {}
    marks: list[tuple[FoldedConv, Any, Any]] = []

    def before(conv: Any, args: Any, kwargs: Any) -> None:
        begun[conv] = clock.mark()

    def after(conv: Any, args: Any, kwargs: Any, out: torch.Tensor) -> None:
        marks.append((conv, begun[conv], clock.mark()))
        if conv not in layers:
            shape = filters[conv]
            shortcut = kwargs.get("shortcut")
            moved = args[0].numel() + out.numel() + math.prod(shape)
            moved += 0 if shortcut is None else shortcut.numel()
            flop = 2.0 * out.numel() * math.prod(shape[1:])
            layers[conv] = Layer(tuple(out.shape), flop, float(moved * out.element_size()))

    for conv in convs:
        conv.register_forward_pre_hook(before, with_kwargs=True)
        conv.register_forward_hook(after, with_kwargs=True)
    wholes: list[float] = []
    with torch.inference_mode(), arithmetic(device, precision), kept_memory():
        for turn in range(rounds + 1):
            marks.clear()
            began = clock.mark()
            form(clips)
            ended = clock.mark()
            if turn:
                wholes.append(clock.between_s(began, ended))
                for conv, start, end in marks:
                    layers[conv].times_s.append(clock.between_s(start, end))
    return list(layers.values()), statistics.median(wholes)


def matmul_rate(device: torch.device, precision: Any, rounds: int = 5) -> float:
    """Operations a second of a large matrix product, the fastest way to do it."""
    flop, ways = products(device, DTYPES[precision])
    clock = Clock(device)
    best = math.inf
    with torch.inference_mode(), arithmetic(device, precision):
        for _ in range(rounds):
            for way in ways.values():
                began = clock.mark()
                way()
                best = min(best, clock.between_s(began, clock.mark()))
    return flop / best


def by_size(layer: Layer) -> str:
    """Layers whose outputs have one size belong together."""
    return "x".join(map(str, layer.shape[1:4]))


def table(
    layers: list[Layer], whole_s: float, flop_per_s: float, bytes_per_s: float,
    key: Callable[[Layer], str],
) -> list[str]:  # fmt: skip
    """Lines of a Markdown table."""
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[key(layer)].append(layer)
    lines = [
        "| output (times x rows x columns) | convolutions | ms a batch | of the time | GFLOP | "
        "of the matmul rate | of the bandwidth | of its roof |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, members in [*groups.items(), ("all convolutions", layers)]:
        time_s = sum(layer.time_s for layer in members)
        flop = sum(layer.flop for layer in members)
        n_bytes = sum(layer.n_bytes for layer in members)
        roof_s = sum(max(layer.flop / flop_per_s, layer.n_bytes / bytes_per_s) for layer in members)
        lines.append(
            f"| {name} | {len(members)} | {1000 * time_s:.2f} | {time_s / whole_s:.2f} | "
            f"{flop / 1e9:.1f} | {flop / time_s / flop_per_s:.2f} | "
            f"{n_bytes / time_s / bytes_per_s:.2f} | {roof_s / time_s:.2f} |"
        )
    rest_s = whole_s - sum(layer.time_s for layer in layers)
    lines.append(f"| all else | | {1000 * rest_s:.2f} | {rest_s / whole_s:.2f} | | | | |")
    return lines


def report(
    name: str, batch: int, device: torch.device, precision: Any, rounds: int, each: bool = False
) -> str:
    """A line of what was measured and the table, in Markdown."""
    layers, whole_s = measure(name, batch, device, precision, rounds)
    flop_per_s, bytes_per_s = matmul_rate(device, precision), bandwidth_bytes_per_s(device)
    places = {id(layer): f"{i}: {by_size(layer)}" for i, layer in enumerate(layers)}
    key = (lambda layer: places[id(layer)]) if each else by_size
    lines = table(layers, whole_s, flop_per_s, bytes_per_s, key)
    return (
        f"{name}, {precision}, batch {batch}: {batch / whole_s:.2f} clips/s; matmul "
        f"{flop_per_s / 1e9:.0f} GFLOP/s, copying {bytes_per_s / 1e9:.1f} GB/s\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="r2plus1d_34")
    parser.add_argument("--batch", type=int, help="4 on a CPU, 64 on a GPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", action="store_true", help="a row a convolution")
    options = parser.parse_args()
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    batch = options.batch or (4 if device.type == "cpu" else 64)
    print(machine())
    print(report(options.backbone, batch, device, precision, options.rounds, options.each))


if __name__ == "__main__":
    main()
