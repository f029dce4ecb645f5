"""Frames: decoding, selecting, scaling, normalising; beside decoding alone and the old reading."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks import official
from benchmarks.decode import SPEC, decode_alone, sample
from benchmarks.figures import Figure, in_turns, len_cores, one_thread
from benchmarks.roofs import bandwidth_bytes_per_s
from tests.extraction.reference import preprocess
from tspcli.encoders.preprocessing import Preprocessing
from tspcli.errors import TspError, VideoError
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.sampling.yuv import YuvReading
from tspcli.video import (
    DecodePool,
    Failed,
    Finished,
    Frames,
    Restarted,
    VideoFile,
    open_source,
    sampled_frames,
)
from tspcli.video.decoders import resolve_decoders
from tspcli.video.decoders.pyav_source import PyavSource

FLOAT_SPEC = FrameSpec(ResizeSpec(128, 171), crop=(112, 112), dtype="float32")
_CHUNK = 27
"""Frames of 4 MiB, which decode processes hand over at once."""
_OLD_CLIPS = 12
"""Clips that the old reading is timed on, spread evenly; it costs the same for each."""


def measure(video: Path, rounds: int, device: torch.device | None = None) -> list[Figure]:
    """The figures of one video; of decoding in hardware too, if the device has it."""
    return [
        *_one_core(video, rounds),
        *(hardware(video, rounds, device) if device and device.type == "cuda" else ()),
        *_old_reading(video, rounds),
        *_workers(video, rounds),
        _prepare(rounds),
    ]


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
            "packed": keep("packed", lambda: pack(video)),
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
            "frames", "gain by handing over coded pictures, as for a GPU",
            times["float"] / times["packed"], "times",
            note=f"{found['packed']['bytes'] / 1e3:.0f} KB a frame",
        ),
        Figure(
            "frames", "gain by leaving out disposable frames", times["all"] / times["8 bit"],
            "times",
            note=f"{found['8 bit']['n_decoded']} of {n_frames} frames decoded",
        ),
    ]  # fmt: skip


def pack(video: Path) -> dict[str, Any]:
    """What a decode process does where the encoder's device converts and scales."""
    packed = np.empty(0, np.uint8)
    reading: YuvReading | None = None
    with open_source(video, "pyav") as source:
        for sampled in sampled_frames(source, Sampling()):
            picture = sampled.frame.yuv()
            assert picture is not None, "the video is not 8-bit 4:2:0"
            if reading is None or reading.format != picture.format:
                reading = YuvReading(picture.format, FLOAT_SPEC)
                packed = np.empty(reading.n_bytes, np.uint8)
            reading.pack(picture.planes, packed)
    return {"bytes": packed.size}


def hardware(video: Path, rounds: int, device: torch.device) -> list[Figure]:
    """Threads that decode on the GPU beside a process per core, compared with these alone."""
    name, cores = "torchcodec-cuda", len_cores()
    copies = [VideoFile(video, f"v{i}") for i in range(4 * cores)]
    what = "hardware decoding beside a process per core, compared with these alone"
    if not torch.cuda.is_available():
        # Without one, the pool would decode everything on the CPU.
        return [Figure.missing("frames", what, "at least 1 times", "there is no GPU")]
    try:
        options = {"decoder": (name, "pyav"), "devices": [str(device)], "as_yuv": True}
        ours = pool_rate(copies, cores, FLOAT_SPEC, **options)
    except (TspError, RuntimeError) as error:
        return [Figure.missing("frames", what, "at least 1 times", str(error))]
    theirs = pool_rate(copies, cores, FLOAT_SPEC, decoder="pyav", as_yuv=True)
    # Comparing the first two seconds with the CPU's belongs to it.
    note = f"{ours:.0f} frames/s, PyAV {theirs:.0f}"
    return [Figure.at_least("frames", what, ours / theirs, 1, "times", note=note)]


def _old_reading(video: Path, rounds: int) -> list[Figure]:
    """Seconds a clip of the original reading, and of ours for the whole video."""
    reading = OldReading(video)
    n_samples = -(-reading.n_ticks // 2)
    preprocessing = Preprocessing()
    # Extraction normalises chunk by chunk, whose memory is used again.
    chunk = torch.zeros(_CHUNK, 112, 112, 3)

    def ours() -> None:
        sample(open_source(video, "pyav"), FLOAT_SPEC)
        for start in range(0, n_samples, _CHUNK):
            preprocessing.normalize(chunk[: n_samples - start], torch.float32)

    def old() -> None:
        for start_s in reading.starts_s:
            reading.clip(start_s)

    parts = {"old": old, "ours": ours, "alone": lambda: decode_alone(video)}
    with one_thread():
        times = in_turns(parts, rounds, time.process_time, warm_up=False)
    figures = []
    for stride, bar in ((16, 5), (1, 50)):
        n_clips = Sampling(stride=stride).n_clips(reading.n_ticks)
        old_s = times["old"] / len(reading.starts_s) * n_clips
        what = f"reading for stride {stride}, beside clip by clip"
        figure = Figure.at_least("frames", what, old_s / times["ours"], bar, "times")
        figures.append(figure.under(old_s / times["alone"], "decoding alone"))
    return figures


class OldReading:
    """The original reading of a video of any frame rate, clip by clip.

    Args:
        video: The video.

    Attributes:
        n_ticks: Its length in thirtieths of a second, of which clips are made.
        starts_s: Where some clips start, spread evenly, in seconds.
    """

    def __init__(self, video: Path) -> None:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            self._fps = float(stream.average_rate or 30)
            n_frames = sum(packet.size > 0 for packet in container.demux(stream))
        self._video = video
        self.n_ticks = round(n_frames * 30 / self._fps)
        last = max(0, self.n_ticks // 2 - 16)
        self.starts_s = [i * last // _OLD_CLIPS / 15 for i in range(_OLD_CLIPS)]

    def clip(self, start_s: float) -> torch.Tensor:
        """One clip, (3, 16, 112, 112): what lies in its time, of which every so manieth frame."""
        frames, _, _ = official.read_video(str(self._video), start_s, start_s + 16 / 15)
        wanted = (torch.arange(16) * self._fps / 15).long().clamp(max=len(frames) - 1)
        return preprocess(list(frames[wanted].numpy()))


def _workers(video: Path, rounds: int) -> list[Figure]:
    cores = len_cores()
    if cores == 1:
        return []
    copies = [VideoFile(video, f"v{i}") for i in range(3 * cores)]
    found: dict[int, list[tuple[float, float]]] = {1: [], cores: []}
    # A second each: such short runs differ by a tenth.
    for _ in range(max(rounds, 5)):
        for count, rates in found.items():
            rates.append(steady_rate(copies[: 3 * count], count))
    one, all_of_them = (statistics.median(rate for rate, _ in rates) for rates in found.values())
    own = statistics.median(share for _, share in found[cores])
    return [
        Figure.at_least(
            "frames", f"{cores} decode workers", all_of_them, 0.9 * cores * one, "frames/s",
            roof=cores * one, roof_name=f"{cores} times one worker",
            note=f"the process that they work for took {own:.1%} of a core",
        )
    ]  # fmt: skip


def steady_rate(files: Sequence[VideoFile], workers: int) -> tuple[float, float]:
    """Frames of the source a second while all workers decode, and this process's share of a core.

    Counted from when every worker has handed over its first frames until the first of them has
    no video left: neither starting nor the last videos' unequal ends take part.

    Args:
        files: Videos of one frame rate, more than workers.
        workers: Decode processes.
    """
    begun: set[int] = set()
    handed: Counter[str] = Counter()
    n_handed, left, began, own_began, frames_each = 0, len(files), 0.0, 0.0, 0.0
    pool = DecodePool(files, sampling=Sampling(), spec=SPEC, workers=workers, threads=1)
    with pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
                handed[event.job.key] += len(event.ticks)
                n_handed += len(event.ticks) if began else 0
                assert event.span is not None
                begun.add(event.span.process)
                if not began and len(begun) == workers:
                    began, own_began = time.perf_counter(), time.process_time()
            elif isinstance(event, Finished):
                left -= 1
                frames_each = event.n_frames / handed[event.job.key]
                if left < workers:
                    break
            elif isinstance(event, Restarted):
                raise VideoError("unsupported", event.why)
            elif isinstance(event, Failed):
                raise event.error
        wall_s = time.perf_counter() - began
        own_s = time.process_time() - own_began
    if not n_handed:
        raise ValueError("The videos end before all workers have begun.")
    return n_handed * frames_each / wall_s, own_s / wall_s


def pool_rate(
    files: Sequence[VideoFile],
    workers: int,
    spec: FrameSpec = SPEC,
    count: Callable[[Finished], float] = lambda ended: ended.n_frames,
    **options: Any,
) -> float:
    """What is counted of the videos, a second: their frames, if nothing else is asked for.

    From the first frame on: starting the processes takes no part.

    Raises:
        VideoError: If a video went from the first decoder to another, if the first one decoded no
            video at all, or if none was any good.
    """
    total, began = 0.0, None
    wanted, used = resolve_decoders(options.get("decoder", "auto"))[0].name, set()
    pool = DecodePool(files, sampling=Sampling(), spec=spec, workers=workers, threads=1, **options)
    with pool:
        for event in pool:
            if isinstance(event, Frames):
                began = began or time.perf_counter()
                event.release()
            elif isinstance(event, Finished):
                total += count(event)
                used.add(event.decoder)
            elif isinstance(event, Restarted):
                raise VideoError("unsupported", event.why)
            elif isinstance(event, Failed):
                raise event.error
    assert began is not None
    if wanted not in used:
        # Such as threads that ended before they were given a video.
        raise VideoError("unsupported", f"{wanted} decoded none of the videos")
    return total / (time.perf_counter() - began)


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
