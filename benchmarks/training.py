"""Training: clips a second of the product beside the literal reference.

    python -m benchmarks.training [--backbone r2plus1d_18] [--batch 8] [--steps 6] [--device auto]

Three parts, each side by side in one process, in turns: reading clips (literal reader: seek,
decode, scale with torch, one clip at a time; the product: straight from the videos and from the
clip cache, in the same one process), the step alone (the literal one in plain fp32; the product's
in each of its ways), and both together: from the clip cache with the product's loader processes,
which read ahead. Roofs: of reading from videos, decoding from the key frame before a clip to its
end, disposable frames left out; of reading from the cache, copying the clips in memory; of a step,
a large matrix product in the same dtype, with three times the operations of the forward pass; of
both together, the step alone: what it takes is all that the data path has to deliver.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.clip_cache import SAMPLING, SPEC, encode_again, literal_clip
from benchmarks.encoder import count_flop
from benchmarks.figures import in_turns, one_thread
from benchmarks.roofs import bandwidth_bytes_per_s
from benchmarks.roofs import products as large_products
from reproduction.synthetic import SyntheticVideo, render_video
from tspcli.core.devices import resolve_device
from tspcli.core.text import first_line
from tspcli.encoders import Heads, TspModel
from tspcli.encoders.backbones import backbone_spec
from tspcli.encoders.precision import DTYPES, arithmetic
from tspcli.pretraining.clip_cache import CachedClips, CacheSettings, build_cache, cache_file
from tspcli.pretraining.clip_cache_file import ClipReader, VideoClips
from tspcli.pretraining.distributed import Devices, Placement
from tspcli.pretraining.epoch_plan import ClipPlan
from tspcli.pretraining.loader import (
    _PREFETCHED_BATCHES,
    BatchFeed,
    ClipBatch,
    ClipLoader,
    choose_workers,
)
from tspcli.pretraining.optim import Schedule, ScheduledOptimizer, build_optimizer
from tspcli.pretraining.trainer import Trainer
from tspcli.pretraining.training_recipe import Execution, load_recipe
from tspcli.pretraining.training_segments import TrainingSegments
from tspcli.pretraining.tsp_losses import Counts

N_CLASSES = 200
_CLIP_SHAPE = (SAMPLING.clip_length, 112, 112, 3)
_CLIP_BYTES = math.prod(_CLIP_SHAPE)
_DECODING = "decoding alone"
_STEP = "the step alone"
_ALONE = 10
"""Steps without a loader, before and after those with it."""
MEAN = torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)
STD = torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)


def crop(clip: torch.Tensor) -> torch.Tensor:
    return ((clip - MEAN) / STD)[:, :, 8:120, 30:142]


def literal_batch(video: Path, starts: list[int]) -> torch.Tensor:
    return torch.stack([crop(literal_clip(video, start / 15)) for start in starts])


def product_batch(reader: ClipReader, starts: list[int]) -> torch.Tensor:
    clips = [reader.read(0, start)[:, 8:120, 30:142].copy() for start in starts]
    return torch.from_numpy(np.stack(clips))


def decode_alone(container: Any, starts: list[int]) -> None:
    """Decode the frames that the clips need, and those before them that these need; no more."""
    stream = container.streams.video[0]
    for start in starts:
        first = (stream.start_time or 0) + int(start / 15 / stream.time_base)
        last = first + int((SAMPLING.clip_length - 1) / 15 / stream.time_base)
        container.seek(first, stream=stream)
        for frame in container.decode(stream):
            if frame.pts >= last:
                break


def labels(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    action = torch.arange(size) % N_CLASSES
    action[size // 2 :] = -1
    return action, (action < 0).long()


class Literal:
    """The published training loop's step."""

    def __init__(self, backbone: str, device: torch.device) -> None:
        torch.manual_seed(0)
        width = backbone_spec(backbone).feature_dim
        self.model = TspModel(backbone, Heads(N_CLASSES, True, width)).to(device).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=0.005
        )
        self.device, self.width = device, width
        self.criterion = nn.CrossEntropyLoss(ignore_index=-1)

    def step(self, clips: torch.Tensor) -> float:
        action, region = (target.to(self.device) for target in labels(len(clips)))
        gvf = torch.zeros(len(clips), self.width, device=self.device)
        logits = self.model(clips.to(self.device), gvf)
        assert logits.action is not None and logits.region is not None
        loss = self.criterion(logits.action, action) + self.criterion(logits.region, region)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Product:
    """The product's step in one of its ways."""

    def __init__(
        self, backbone: str, device: torch.device, precision: str, execution: Execution
    ) -> None:
        torch.manual_seed(0)
        spec = backbone_spec(backbone)
        self.width, self.precision, self.device = spec.feature_dim, precision, device
        recipe = load_recipe("tsp-activitynet", {"backbone": backbone})
        model = TspModel(backbone, Heads(N_CLASSES, True, self.width))
        devices = Devices(Placement(), str(device))
        self.trainer = Trainer(model, recipe, execution, devices, spec.preprocessing, precision)
        self.optimizer = ScheduledOptimizer(
            build_optimizer(self.trainer.model, recipe), Schedule.of(recipe, 100)
        )
        self.trainer.set_training()

    def step(self, pixels: torch.Tensor) -> float:
        action, region = labels(len(pixels))
        size = len(pixels)
        gvf = torch.zeros(size, self.width)
        return self.train(ClipBatch(pixels, action, region, gvf, torch.ones(size), [""] * size))

    def train(self, batch: ClipBatch) -> float:
        """A step over a batch of which the first half shows actions."""
        size = len(batch)
        with arithmetic(self.device, self.precision, training=True):
            done = self.trainer.step(batch, Counts(size // 2, size), self.optimizer)
        return float(done.figures.total("action_loss"))


def with_loader(
    product: Product, backbone: str, cached: CachedClips, video_s: float, size: int, steps: int
) -> tuple[float, float]:
    """Seconds a step whose clips the product's own loader reads from the cache meanwhile.

    Returns:
        Those, and the seconds of a step over clips that are there, just before and just after; 0 on
        a CPU, where a step takes a hundred times as long as reading its clips.
    """
    action, region = labels(size)
    zeros = np.zeros(size)
    table = TrainingSegments(
        filenames=("video",),
        video=np.zeros(size, np.int64),
        start_s=zeros,
        end_s=zeros + video_s,
        duration_s=zeros + video_s,
        action=action.numpy(),
        region=region.numpy(),
        n_rows=size,
        n_short=0,
        n_background=0,
    )
    clips = ClipPlan(table, SAMPLING, clips_per_segment=1, seed=0, training=True)
    gvf = np.zeros((1, product.width), np.float32)
    loader = ClipLoader(clips, cached, backbone_spec(backbone).preprocessing, gvf)
    on_gpu = product.device.type == "cuda"
    workers = choose_workers(-1, 1)
    # On a GPU what was read before the first step is used up before time is taken.
    before = 1 + (workers * _PREFETCHED_BATCHES if on_gpu else 0)
    steps = max(steps, 2 * before) if on_gpu else steps
    feed = BatchFeed(loader, workers, pin=on_gpu)
    wanted = ([clips.request(epoch, i) for i in range(size)] for epoch in range(before + steps))
    pixels = torch.zeros((size, *_CLIP_SHAPE), dtype=torch.uint8)
    began = taken = alone_s = 0.0

    def alone() -> float:
        times = (
            in_turns({"step": lambda: product.step(pixels)}, _ALONE, settled_s)
            if on_gpu
            else {"step": 0.0}
        )
        return times["step"] / 2

    alone_s += alone()
    try:
        for number, batch in enumerate(feed(wanted), start=1):
            product.train(batch)
            if number == before:
                _settle()
                began = time.perf_counter()
        _settle()
        taken = time.perf_counter() - began
    finally:
        feed.close()
    return taken / steps, alone_s + alone()


def step_roofs(backbone: str, device: torch.device, ways: dict[str, str]) -> dict[str, float]:
    """Clips a second at which each way of a step would be at the machine's matmul rate.

    Args:
        ways: The precision of each.
    """
    spec = backbone_spec(backbone)
    length, (height, width) = spec.sampling.clip_length, spec.preprocessing.crop
    # Backwards a convolution is computed twice: for its inputs and for its filters.
    flop = 3 * count_flop(spec.build(), torch.empty(1, 3, length, height, width))
    rates = {}
    for precision in set(ways.values()):
        product_flop, runs = large_products(device, DTYPES[precision])
        with torch.inference_mode(), arithmetic(device, precision):
            rates[precision] = product_flop / min(in_turns(runs, 5, settled_s).values())
    return {name: rates[precision] / flop for name, precision in ways.items()}


def _leave_out_broken(
    products: dict[str, Product], ways: dict[str, tuple[str, Execution]], pixels: torch.Tensor
) -> None:
    """A machine whose compiler does not work has other figures to give."""
    for name in [name for name, (_, execution) in ways.items() if execution.compile]:
        try:
            products[name].step(pixels)
        except Exception as error:  # whatever a compiler may say
            print(f"  step: {name}: not measured: {type(error).__name__}: {first_line(error)}")
            del products[name]


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def settled_s() -> float:
    """Now, once the GPU has done what it was given."""
    _settle()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="r2plus1d_18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--video", type=Path, help="encoded again with groups of 250 frames")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.video:
            video = encode_again(options.video, folder, 60)
        else:
            video = folder / "rendered.mp4"
            render_video(SyntheticVideo("r", 1, 60, (), height=360, width=480), video, gop=250)
        rows = run(options, device, video, folder)
    print("| part | clips/s | times the literal reference | roof, clips/s |\n|---|---|---|---|")
    for row in rows:
        roof = f"{row['roof']:.2f}" if "roof" in row else ""
        print(f"| {row['part']} | {row['clips_per_s']:.2f} | {row['ratio']:.2f} | {roof} |")
    print(json.dumps(rows))


def run(
    options: argparse.Namespace, device: torch.device, video: Path, folder: Path
) -> list[dict[str, float | str]]:
    size = options.batch
    report = build_cache([video], folder / "cache", CacheSettings(SAMPLING, SPEC), workers=1)
    straight = VideoClips([video], SAMPLING, SPEC)
    cached = CachedClips([cache_file(folder / "cache", video)], SAMPLING.clip_length)
    # Clips that end before the video does: both readers then decode all of their frames.
    last = int(report.video_s * SAMPLING.frame_rate) - SAMPLING.clip_length

    def reading(batch: Callable[[list[int]], Any]) -> Callable[[], Any]:
        """Reads other clips each time; every reader the same ones, seeking takes unequally long."""
        rng = np.random.default_rng(0)
        return lambda: batch(rng.integers(0, last, size).tolist())

    by_clip = partial(literal_batch, video)
    from_videos, from_cache = partial(product_batch, straight), partial(product_batch, cached)

    literal = Literal(options.backbone, device)
    plain = Execution()
    ways = {
        "fp32": ("fp32", plain),
        "fp32 channels-last": ("fp32", replace(plain, channels_last=True)),
    }
    if device.type == "cuda":
        ways["bf16"] = ("bf16", plain)
        ways["bf16 channels-last"] = ("bf16", replace(plain, channels_last=True))
        ways["bf16 channels-last compiled"] = (
            "bf16",
            replace(plain, channels_last=True, compile=True),
        )
    products = {
        name: Product(options.backbone, device, precision, execution)
        for name, (precision, execution) in ways.items()
    }
    pixels, clips = reading(from_cache)(), reading(by_clip)()
    _leave_out_broken(products, ways, pixels)
    best = list(products)[-1]

    def trained(
        step: Callable[[torch.Tensor], float], read: Callable[[], torch.Tensor]
    ) -> Callable[[], float]:
        return lambda: step(read())

    container = av.open(str(video))
    container.streams.video[0].codec_context.thread_count = 1
    # Of a video at 30 frames a second, as the benchmark's, clips need no other ones.
    container.streams.video[0].codec_context.skip_frame = "NONREF"
    groups: dict[str, dict[str, Callable[[], object]]] = {
        "reading": {
            _DECODING: reading(partial(decode_alone, container)),
            "literal": reading(by_clip),
            "from videos": reading(from_videos),
            "from the cache": reading(from_cache),
        },
        "step": {
            "literal": lambda: literal.step(clips),
            **{name: (lambda way=way: way.step(pixels)) for name, way in products.items()},
        },
        "reading and step": {
            _STEP: lambda: products[best].step(pixels),
            "literal": trained(literal.step, reading(by_clip)),
            f"from videos, {best}": trained(products[best].step, reading(from_videos)),
        },
    }
    step_s, ahead = 0.0, ""
    with one_thread():
        copied = bandwidth_bytes_per_s(torch.device("cpu")) / (2 * _CLIP_BYTES)
    roofs = {"reading: from the cache": (copied, "copying the clips")}
    rows: list[dict[str, float | str]] = []
    for group, parts in groups.items():
        # Reading takes so much less than a step that many more rounds cost nothing; all parts of
        # the last group have run by then.
        rounds = options.steps * (10 if group == "reading" else 1)
        if group == "reading":
            # Both loops read in loader processes, to each of which torch gives one thread; its
            # processor time, which whoever else uses the machine disturbs less.
            with one_thread():
                times = in_turns(parts, rounds, time.process_time)
        else:
            times = in_turns(parts, rounds, settled_s, warm_up=group == "step")
        if group == "reading and step":
            ahead = f"from the cache, {best}"
            times[ahead], step_s = with_loader(
                products[best], options.backbone, cached, report.video_s, size, options.steps
            )
        if group == "reading":
            roofs["reading: from videos"] = size / times.pop(_DECODING), _DECODING
        elif group == "step":
            precisions = {name: ways[name][0] for name in products}
            for name, rate in step_roofs(options.backbone, device, precisions).items():
                roofs[f"step: {name}"] = rate, "the matmul rate"
        else:
            for source in ("videos", "the cache"):
                rate = size / (step_s or times[_STEP])
                roofs[f"reading and step: from {source}, {best}"] = rate, _STEP
            del times[_STEP]
        for name, taken in times.items():
            row: dict[str, float | str] = {
                "part": f"{group}: {name}",
                "clips_per_s": size / taken,
                "ratio": times["literal"] / taken,
            }
            if row["part"] in roofs:
                row["roof"], row["roof_name"] = roofs[str(row["part"])]
            if name == ahead and step_s:
                row["of_step"] = step_s / taken
            rows.append(row)
    container.close()
    return rows


if __name__ == "__main__":
    main()
