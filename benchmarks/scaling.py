"""What a million hours of video take on 1, 10, 100 and 1,000 GPUs, and what gives way first.

    python -m benchmarks.scaling [--hours 1e6] [--cores-per-gpu 16] [--decode-speed 20]

A simulation in steps of a minute at least. In each, every node that is up does what the scarcest of
its means allows: its GPUs, its cores, its share of the storage's bandwidth, of the commits that the
file system takes, and of the videos that one driver can hand out (with Ray; shards have no
driver). Nodes fail at random, lose what is under way, and come back. At the end the parts become
one file, or one file a shard. The constants are below, each with where it comes from.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass, replace

STEPS = 5000
"""About so many a run, of a minute at least."""


@dataclass(frozen=True)
class Constants:
    """What the simulation knows. ``measured``: in this project; ``assumed``: a guess to replace.

    ``python -m benchmarks.decode``, ``benchmarks.encoder`` and ``benchmarks.engines`` measure
    them on another machine.
    """

    # The encoder and the sampling of the released features.
    gflop_per_clip: float = 152.36  # counted: r2plus1d_34, 16 frames of 112 x 112
    frame_rate: float = 15.0
    row_bytes: int = 512 * 4
    # assumed: an H100 at a quarter of its dense fp16 peak. No GPU was measured.
    gpu_tflops: float = 250.0
    # measured: 71 to 87 on 360p and 240p (PyAV, float32 frames, processor time of one core of the
    # machine that ran the tests). assumed: 720p takes four times as long.
    decode_speed: float = 20.0
    cores_per_gpu: float = 16.0
    gpus_per_node: int = 8
    # The videos. mean length of ActivityNet's training videos, from its own table.
    mean_video_s: float = 117.0
    longest_video_s: float = 4 * 3600.0
    video_gb_per_hour: float = 1.0  # assumed: 720p at 2.2 Mbit/s; measured 0.07 to 0.24 below 360p
    # Storage that all nodes see.
    storage_gb_per_s: float = 20.0  # assumed
    commits_per_s: float = 3000.0  # assumed: a create, a rename and two syncs each
    # measured: processor time, 110 rows a video; 2.1 ms a video in all at 225 kB.
    assemble_ms_per_video: float = 1.5
    assemble_mb_per_s: float = 400.0
    store_overhead_bytes: int = 1526  # measured: a dataset's header and attributes
    # measured: processor time of the driver, one node (benchmarks.engines).
    driver_ms_per_video: float = 5.2
    # Failures. assumed: hardware and preemption together, per node.
    node_hours_between_failures: float = 1000.0
    node_down_h: float = 0.5
    videos_under_way_per_gpu: float = 18.0  # a decode process each, and two that wait
    dollars_per_gpu_hour: float = 2.5  # assumed, the cores beside it included


@dataclass(frozen=True)
class Outcome:
    """A run's figures.

    Attributes:
        days: Wall time until the last part is committed.
        gpu_busy: Share of the time in which GPUs compute.
        limits: Share of the steps that each means was the scarcest in, largest first.
        videos_per_s: Mean over the run.
        failures: Nodes lost.
        again: Share of the video that was computed twice.
        one_file_h: Hours to assemble one store; ``shard_h``: one a shard of 1,000 hours of video,
            as many at a time as there are GPUs.
    """

    n_gpus: int
    stride: int
    days: float
    gpu_busy: float
    limits: dict[str, float]
    videos_per_s: float
    failures: int
    again: float
    one_file_h: float
    shard_h: float
    store_tb: float
    dollars: float


def simulate(
    n_gpus: int, stride: int, hours: float, constants: Constants, *, ray: bool, seed: int = 0
) -> Outcome:
    """Run the simulation once."""
    c, rng = constants, random.Random(seed)
    gpus_per_node = min(c.gpus_per_node, n_gpus)
    n_nodes = math.ceil(n_gpus / gpus_per_node)
    clips_per_hour = 3600 * c.frame_rate / stride
    # Hours of video in an hour.
    by_gpu = 3600 * c.gpu_tflops * 1e3 / (c.gflop_per_clip * clips_per_hour)
    by_cores = c.cores_per_gpu * c.decode_speed
    mean_h = c.mean_video_s / 3600
    shared = {
        "storage": c.storage_gb_per_s * 3600 / c.video_gb_per_hour,
        "commits": c.commits_per_s * 3600 * mean_h,
    }
    if ray:
        shared["driver"] = 3600 / (c.driver_ms_per_video / 1e3) * mean_h
    left, steps, busy, failures, again = hours, 0, 0.0, 0, 0.0
    limits: dict[str, int] = {}
    back_at: list[int] = []
    step_h = max(1 / 60, hours / (n_gpus * min(by_gpu, by_cores)) / STEPS)
    chance = 1 - math.exp(-step_h / c.node_hours_between_failures)
    while left > 0:
        back_at = [step for step in back_at if step > steps]
        up = n_nodes - len(back_at)
        # A node that fails twice in one long step counts once.
        failed = sum(rng.random() < chance for _ in range(up))
        if failed:
            failures += failed
            back_at += [steps + math.ceil(c.node_down_h / step_h)] * failed
            lost = failed * gpus_per_node * c.videos_under_way_per_gpu * mean_h / 2
            again += lost
            left += lost
            up -= failed
        gpus = n_gpus * up / n_nodes
        means = {"GPU": gpus * by_gpu, "cores": gpus * by_cores, **shared}
        scarcest = min(means, key=lambda name: means[name])
        limits[scarcest] = limits.get(scarcest, 0) + 1
        rate = means[scarcest]
        left -= rate * step_h
        busy += rate / by_gpu / n_gpus
        steps += 1
    # The longest video starts first, on one core.
    wall_h = max(steps * step_h, c.longest_video_s / 3600 / c.decode_speed)
    n_videos = hours / mean_h
    n_bytes = hours * clips_per_hour * c.row_bytes + n_videos * c.store_overhead_bytes
    one_file_s = n_videos * c.assemble_ms_per_video / 1e3 + n_bytes / (c.assemble_mb_per_s * 1e6)
    n_shards = max(1, round(hours / 1000))
    rounds = math.ceil(n_shards / n_gpus)
    return Outcome(
        n_gpus=n_gpus,
        stride=stride,
        days=wall_h / 24,
        gpu_busy=busy / steps,
        limits={name: count / steps for name, count in sorted(limits.items(), key=lambda x: -x[1])},
        videos_per_s=n_videos / (wall_h * 3600),
        failures=failures,
        again=again / hours,
        one_file_h=one_file_s / 3600,
        shard_h=one_file_s / 3600 / n_shards * rounds,
        store_tb=n_bytes / 1e12,
        dollars=n_gpus * wall_h * c.dollars_per_gpu_hour,
    )


def table(outcomes: list[tuple[str, Outcome]]) -> str:
    """The outcomes as a Markdown table."""
    lines = [
        "| stride | GPUs | run by | days | limited by | GPUs busy | videos/s | nodes lost "
        "| computed twice | one file | a file a shard | dollars |",
        "|---" * 12 + "|",
    ]
    for name, o in outcomes:
        limit = next(iter(o.limits))
        lines.append(
            f"| {o.stride} | {o.n_gpus:,} | {name} | {o.days:,.1f} | {limit} "
            f"| {o.gpu_busy:.0%} | {o.videos_per_s:,.1f} | {o.failures} | {o.again:.4%} "
            f"| {o.one_file_h:,.1f} h | {_short(o.shard_h)} | {o.dollars:,.0f} |"
        )
    return "\n".join(lines)


def _short(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1e6)
    parser.add_argument("--cores-per-gpu", type=float, default=Constants.cores_per_gpu)
    parser.add_argument("--decode-speed", type=float, default=Constants.decode_speed)
    parser.add_argument("--driver-ms", type=float, default=Constants.driver_ms_per_video)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 10, 100, 1000])
    options = parser.parse_args()
    constants = replace(
        Constants(),
        cores_per_gpu=options.cores_per_gpu,
        decode_speed=options.decode_speed,
        driver_ms_per_video=options.driver_ms,
    )
    outcomes = [
        (name, simulate(n_gpus, stride, options.hours, constants, ray=name == "Ray"))
        for stride in (16, 1)
        for n_gpus in options.gpus
        for name in ("shards", "Ray")
    ]
    print(table(outcomes))


if __name__ == "__main__":
    main()
