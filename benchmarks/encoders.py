"""Encoders: the form that extraction runs beside plain eager, and overlapping clips that share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import encoder
from benchmarks.figures import Figure, in_turns
from benchmarks.roofs import products
from tspcli.encoders import Encoder, load_encoder
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.fused import FoldedConv
from tspcli.encoders.precision import resolve_precision
from tspcli.extraction.batch_encoder import kept_memory
from tspcli.sampling import Sampling

CPU_BARS = {1: 1.45, 4: 1.65}
OPENVINO_BARS = {1: 1.6, 4: 2.0}
_SHARE_OF_GPU = 0.55
_SERIES = {"cpu": (16, 4), "cuda": (64, 64)}
"""Clips of a series, and of a batch of the same clips alone."""


def measure(
    backbones: Sequence[str], device: torch.device, rounds: int, clock: Callable[[], float]
) -> list[Figure]:
    """The figures of some backbones on a device."""
    if device.type == "cuda":
        figures = [figure for name in backbones for figure in on_gpu(name, device, rounds)]
        for name in backbones:
            figures += sharing(load_encoder("random", backbone=name, device=device, seed=0), clock)
        return figures
    figures = [
        figure
        for name in backbones
        for batch, bar in CPU_BARS.items()
        for figure in _on_cpu(name, batch, bar, device, rounds, clock)
    ]
    for name in backbones:
        loaded = load_encoder("random", backbone=name, device="cpu", seed=0)
        figures += sharing(loaded, clock)
        figures.append(_bf16(loaded, rounds, clock))
    return figures


def sharing(loaded: Encoder, clock: Callable[[], float]) -> list[Figure]:
    """The smallest and the largest stride at which overlapping clips share, if they do at all."""
    strides = [stride for stride in (1, 2, 4) if loaded.supports_series(Sampling(stride=stride))]
    ends = sorted({*strides[:1], *strides[-1:]})
    operations = Operations(loaded)
    return [_dense(loaded, operations, stride, clock) for stride in ends]


def _beside_eager(row: dict[str, Any], form: str, what: str, bar: float, note: str) -> Figure:
    """How many times faster than eager a form is; at the roof it would be at the matmul rate."""
    speedup, share = row["speedup"][form], row["share_of_roof"][form]
    figure = Figure.at_least("encoder", what, speedup, bar, "times", note=note)
    return figure.under(speedup / share, "the matmul rate")


def _openvino(name: str, batch: int, row: dict[str, Any]) -> Figure:
    """OpenVINO's figure of a row, or how to get it."""
    what = f"{name}, batch {batch}, OpenVINO beside eager"
    if "openvino" not in row["speedup"]:
        target = f"at least {OPENVINO_BARS[batch]} times"
        return Figure.missing("encoder", what, target, "pip install openvino")
    against = row["speedup"]["openvino"] / row["speedup"]["fast"]
    note = f"{against:.2f} of the form in torch"
    return _beside_eager(row, "openvino", what, OPENVINO_BARS[batch], note)


def _on_cpu(
    name: str,
    batch: int,
    bar: float,
    device: torch.device,
    rounds: int,
    clock: Callable[[], float],
) -> list[Figure]:
    row = encoder.measure(
        name, batch, device, "fp32", rounds, clock, with_channels_last=False, with_openvino=True
    )
    assert row["relative_error"] < 1e-5
    note = (
        f"{row['clips_per_s']['fast']:.2f} clips/s; the matmul rate is "
        f"{row['roof_gflop_per_s']:.0f} GFLOP/s; eager with kept memory, too, is at "
        f"{row['share_of_roof']['eager']:.2f} of it: {row['speedup']['eager']:.2f} times eager, "
        f"beside it this form {row['speedup']['fast'] / row['speedup']['eager']:.2f} times"
    )
    in_torch = _beside_eager(row, "fast", f"{name}, batch {batch}, beside eager", bar, note)
    return [in_torch, _openvino(name, batch, row)]


def on_gpu(
    name: str,
    device: torch.device,
    rounds: int,
    batch: int = 64,
    precision: str = "bf16",
    static: Sequence[str] | None = None,
) -> list[Figure]:
    """The form that extraction runs, and those for batches of one size: all, or some by name."""
    static = list(encoder.STATIC_FORMS) if static is None else static
    resolved = resolve_precision(precision, device)
    row = encoder.measure(name, batch, device, resolved, rounds, time.perf_counter, static=static)
    made = f"{name}, {precision}, batch {batch}"
    share = row["share_of_roof"]["fast"]
    figure = Figure.at_least(
        "encoder", f"{made}, share of the matmul rate", share, _SHARE_OF_GPU, "",
        note=f"{row['clips_per_s']['fast']:.0f} clips/s; eager {row['clips_per_s']['eager']:.0f}, "
        f"channels last {row['clips_per_s']['channels_last']:.0f}",
    )  # fmt: skip
    return [figure, *(_static(made, row, form) for form in static)]


def _static(made: str, row: dict[str, Any], form: str) -> Figure:
    """A form that extraction runs only if told to, beside the matmul rate; or why it fails."""
    what = f"{made}, {form}"
    if form in row["failed"]:
        return Figure.missing("encoder", what, "", row["failed"][form])
    rate, share = row["clips_per_s"][form], row["share_of_roof"][form]
    note = (
        f"{rate / row['clips_per_s']['fast']:.2f} times the form that extraction runs; "
        f"{row['errors'][form]:.0e} from eager, that form {row['errors']['fast']:.0e}"
    )
    return Figure(
        "encoder", what, rate, "clips/s", roof=rate / share, roof_name="the matmul rate", note=note
    )


def _bf16(loaded: Encoder, rounds: int, clock: Callable[[], float]) -> Figure:
    """What reduced precision gains, which some processors have and nobody gets unasked."""
    name = loaded.backbone
    reduced = load_encoder("random", backbone=name, device="cpu", seed=0, precision="bf16")
    clips = torch.randn(4, 3, 16, 112, 112)
    rows: dict[str, torch.Tensor] = {}

    def run(encoder: Encoder) -> Callable[[], None]:
        def encode() -> None:
            rows[encoder.precision] = encoder.encode(clips)

        return encode

    flop = encoder.count_flop(backbone_spec(name).build().eval(), clips)
    product_flop, ways = products(torch.device("cpu"), torch.bfloat16)
    with kept_memory(), torch.inference_mode():
        times = in_turns({"fp32": run(loaded), "bf16": run(reduced), **ways}, rounds, clock)
    rate = product_flop / min(times[way] for way in ways)
    error = (rows["bf16"] - rows["fp32"]).norm(dim=1) / rows["fp32"].norm(dim=1)
    return Figure(
        "encoder", f"{name}, batch 4, bf16 beside fp32", times["fp32"] / times["bf16"], "times",
        roof=times["fp32"] * rate / flop, roof_name="the matmul rate in bf16",
        note=f"{4 / times['bf16']:.2f} clips/s; rows {error.max():.0e} apart",
    )  # fmt: skip


class Operations:
    """Counts what the convolutions of an encoder compute; made before it has run."""

    def __init__(self, loaded: Encoder) -> None:
        # Their filters are packed out of sight when they first run.
        self._convs = {
            conv: 2.0 * math.prod(conv.weight.shape[1:])
            for conv in loaded.form.modules()
            if isinstance(conv, FoldedConv) and conv.weight is not None
        }

    def count(self, run: Callable[[], object]) -> float:
        """The floating-point operations of a call."""
        total = 0.0

        def add(conv: FoldedConv, args: object, out: torch.Tensor) -> None:
            nonlocal total
            total += self._convs[conv] * out.numel()

        hooks = [conv.register_forward_hook(add) for conv in self._convs]
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
        return total


def _dense(
    loaded: Encoder, operations: Operations, stride: int, clock: Callable[[], float]
) -> Figure:
    """A series of overlapping clips, beside the same clips in batches."""
    name = loaded.backbone
    sampling = Sampling(stride=stride)
    device = loaded.device
    count, batch = _SERIES[device.type]
    frames = torch.randn((count - 1) * stride + 16, 3, 112, 112, device=device)
    starts = range(0, count * stride, stride)
    clips = torch.stack([frames[i : i + 16] for i in starts]).transpose(1, 2)
    rows: dict[str, torch.Tensor] = {}

    def alone() -> None:
        batches = clips.split(batch)
        rows["alone"] = torch.cat([loaded.encode(part) for part in batches])

    def together() -> None:
        rows["together"] = loaded.encode_series(frames, sampling)

    with kept_memory():
        # Each has the memory for what follows, as from the second series of a run on.
        each = operations.count(lambda: loaded.encode(clips[:batch])) / batch
        shared = operations.count(lambda: loaded.encode_series(frames, sampling))
        times = in_turns(
            {"alone": alone, "together": together}, 1, clock, warm_up=device.type != "cpu"
        )
    error = (rows["together"] - rows["alone"]).norm(dim=1) / rows["alone"].norm(dim=1)
    assert error.max() < (1e-5 if loaded.precision == "fp32" else 1e-2)
    return Figure(
        "encoder", f"{name}, stride {stride}, clips that share beside clips alone",
        times["alone"] / times["together"], "times",
        roof=count * each / shared, roof_name="what is saved by count",
        note=f"{count / times['together']:.2f} clips/s; rows agree to {error.max():.0e}",
    )  # fmt: skip
