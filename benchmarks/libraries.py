"""Encoders beside the libraries that published features were made with, in one run.

    python -m benchmarks.libraries [--backbones videomae_b,slowfast_r50] [--batch 8] [--rounds 3]
                                   [--cpu-time]

``transformers`` for VideoMAE, with its fused attention; ``pytorchvideo`` for SlowFast. Both take a
batch at once and, as published scripts do, one clip after the other. All hold random weights: only
shapes count for speed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.encoder import count_flop
from benchmarks.figures import Figure, in_turns, one_thread, show
from benchmarks.roofs import products
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.backbones.slowfast import slow_frames
from tspcli.encoders.fused import inference_form
from tspcli.extraction.batch_encoder import kept_memory

BATCH = 8
SHARE_OF_MATMUL = 0.8
Run = Callable[[Tensor], Any]


def _transformers() -> Run:
    library = import_module("transformers")
    model = library.VideoMAEModel(library.VideoMAEConfig()).eval()
    return lambda clips: model(clips.transpose(1, 2)).last_hidden_state.mean(1)


def _pytorchvideo() -> Run:
    library = import_module("pytorchvideo.models.slowfast")
    blocks = library.create_slowfast().eval().blocks[:6]

    def run(clips: Tensor) -> Any:
        x: Any = [clips[:, :, slow_frames(clips.shape[2])], clips]
        for block in blocks:
            x = block(x)
        return x

    return run


LIBRARIES: dict[str, tuple[str, Callable[[], Run]]] = {
    "videomae_b": ("transformers", _transformers),
    "slowfast_r50": ("pytorchvideo", _pytorchvideo),
}
"""The library of a backbone, and what makes its network."""


def measure(
    name: str, batch: int, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[Figure]:
    """Figures of one backbone on the CPU."""
    library, make = LIBRARIES[name]
    spec, device = backbone_spec(name), torch.device("cpu")
    plain = spec.build().eval()
    height, width = spec.preprocessing.crop
    frames = torch.randn(batch, spec.sampling.clip_length, height, width, 3)
    clips = frames.permute(0, 4, 1, 2, 3)
    flop = count_flop(plain, clips)
    ours = inference_form(plain, device, torch.float32, spec.layer)
    product_flop, ways = products(device, torch.float32)
    runs: dict[str, Callable[[], object]] = {**ways, "ours": lambda: ours(clips)}
    try:
        theirs = make()
    except ImportError:
        theirs = None
    if theirs is not None:
        ordered = clips.contiguous()
        runs["theirs"] = lambda: theirs(ordered)
        runs["one by one"] = lambda: [theirs(clip[None]) for clip in ordered]
    with torch.inference_mode(), kept_memory():
        taken = in_turns(runs, rounds, clock)
    rate = product_flop / min(taken[way] for way in ways)
    share = flop / taken["ours"] / rate
    what = f"{name}, batch {batch}"
    figures = [
        Figure.at_least(
            "encoder", f"{what}, share of the matmul rate", share, SHARE_OF_MATMUL, "",
            note=f"{batch / taken['ours']:.2f} clips/s; the matmul rate is "
            f"{rate / 1e9:.0f} GFLOP/s",
        )
    ]  # fmt: skip
    for way, words in (("theirs", "a batch at once"), ("one by one", "one clip after the other")):
        against = f"{what}, beside {library}, {words}"
        if way not in taken:
            target, command = "at least 1 times", f"pip install {library}"
            figures.append(Figure.missing("encoder", against, target, command))
            continue
        times = taken[way] / taken["ours"]
        note = f"it is at {flop / taken[way] / rate:.2f} of the matmul rate"
        figures.append(Figure.at_least("encoder", against, times, 1.0, "times", note=note))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", default=",".join(LIBRARIES))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    options = parser.parse_args()
    for name in options.backbones.split(","):
        if options.cpu_time:
            with one_thread():
                figures = measure(name, options.batch, options.rounds, time.process_time)
        else:
            figures = measure(name, options.batch, options.rounds)
        show(figures)


if __name__ == "__main__":
    main()
