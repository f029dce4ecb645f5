"""Frames: decoding, selecting, scaling, normalising; beside decoding alone and the old reading."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import torch

from benchmarks import official
from benchmarks.decode import SPEC, decode_alone, sample
from benchmarks.figures import Figure, in_turns, len_cores
from benchmarks.roofs import bandwidth_bytes_per_s
from tests.extraction.reference import preprocess
from tspcli.config import FrameSpec, ResizeSpec
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.timeline import Sampling
from tspcli.video import DecodePool, Frames, VideoFile, open_source
from tspcli.video.pyav_source import PyavSource

FLOAT_SPEC = FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32")
_OLD_CLIPS = 12
"""Clips that the old reading is timed on, spread evenly; it costs the same for each."""


def measure(video: Path, rounds: int) -> list[Figure]:
    """The figures of one video, 30 frames a second."""
    return [*_one_core(video, rounds), *_old_reading(video), *_workers(video), _prepare(rounds)]


def _one_core(video: Path, rounds: int) -> list[Figure]:
    found: dict[str, dict[str, Any]] = {}

    def keep(name: str, way: Any) -> Any:
        def run() -> None:
            found[name] = way()

        return run

    # Processor time: whoever else uses the machine disturbs it less.
    times = in_turns(
        {
            "alone": keep("alone", lambda: decode_alone(video)),
            "8 bit": keep("8 bit", lambda: sample(open_source(video, "pyav"))),
            "float": keep("float", lambda: sample(open_source(video, "pyav"), FLOAT_SPEC)),
            "all": keep("all", lambda: sample(PyavSource(str(video), skip_unwanted=False))),
        },
        rounds,
        time.process_time,
    )
    n_frames = found["alone"]["n_frames"]
    roof = n_frames / times["alone"]
    more = {"roof": roof, "roof_name": "decoding alone"}
    return [
        Figure("frames", "decode, nothing else, one core", roof, "frames/s"),
        Figure.at_least(
            "frames", "decode, select, resize, one core", n_frames / times["8 bit"], 0.9 * roof,
            "frames/s", **more,
        ),
        Figure.at_least(
            "frames", "the same, nothing rounded (the default)", n_frames / times["float"],
            0.9 * roof, "frames/s", **more,
        ),
        Figure(
            "frames", "gain by leaving out disposable frames", times["all"] / times["8 bit"],
            "times",
            note=f"{found['8 bit']['n_decoded']} of {n_frames} frames decoded",
        ),
    ]  # fmt: skip


def _old_reading(video: Path) -> list[Figure]:
    """Seconds a clip of the original reading, and of ours for the whole video."""
    with av.open(str(video)) as container:
        n_frames = sum(packet.size > 0 for packet in container.demux(video=0))
    n_samples = (n_frames + 1) // 2
    starts = [(i * (n_samples - 16) // _OLD_CLIPS) * 2 / 30 for i in range(_OLD_CLIPS)]
    began = time.process_time()
    for start_s in starts:
        frames, _, _ = official.read_video(str(video), start_s, start_s + 16 / 15)
        preprocess(list(frames[::2][:16].numpy()))
    old_s = (time.process_time() - began) / len(starts)
    preprocessing = Preprocessing()
    began = time.process_time()
    source = open_source(video, "pyav")
    sample(source, FLOAT_SPEC)
    preprocessing.normalize(torch.zeros(n_samples, 112, 112, 3), torch.float32)
    new_s = time.process_time() - began
    return [
        Figure.at_least(
            "frames",
            f"reading for stride {stride}, beside clip by clip",
            old_s * Sampling(stride=stride).n_clips(n_frames) / new_s,
            bar,
            "times",
        )
        for stride, bar in ((16, 5), (1, 50))
    ]


def _workers(video: Path) -> list[Figure]:
    cores = len_cores()
    copies = [VideoFile(video, f"v{i}") for i in range(2 * cores)]
    rates = {count: pool_rate(copies, count) for count in {1, cores}}
    if cores == 1:
        return []
    return [
        Figure.at_least(
            "frames", f"{cores} decode workers", rates[cores], 0.9 * cores * rates[1], "frames/s",
            roof=cores * rates[1], roof_name=f"{cores} times one worker",
        )
    ]  # fmt: skip


def pool_rate(files: Sequence[VideoFile], workers: int) -> float:
    """Source frames a second from the first frame on: starting the processes is not counted."""
    n_frames, began = 0, None
    pool = DecodePool(files, sampling=Sampling(), spec=SPEC, workers=workers, threads=1)
    with pool:
        for event in pool:
            if isinstance(event, Frames):
                began = began or time.perf_counter()
                event.release()
            n_frames += getattr(event, "n_frames", 0)
    assert began is not None
    return n_frames / (time.perf_counter() - began)


def _prepare(rounds: int) -> Figure:
    preprocessing = Preprocessing()
    frames = torch.rand(64, 112, 112, 3) * 255
    run = {"prepare": lambda: preprocessing.normalize(frames, torch.float32)}
    taken = in_turns(run, max(rounds, 3))["prepare"]
    roof = bandwidth_bytes_per_s(torch.device("cpu")) / 1e9
    return Figure(
        "frames", "normalising", 2 * frames.nbytes / taken / 1e9, "GB/s", roof=roof,
        roof_name="memory bandwidth",
    )  # fmt: skip
