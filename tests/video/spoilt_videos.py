"""Videos spoilt in every way, and how the decode pool takes them."""

from __future__ import annotations

import random
import re
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.builders.mutations import mutate_bytes
from tests.builders.videos import make_video
from tspcli.errors import VIDEO_REASONS
from tspcli.sampling import Sampling
from tspcli.sampling.pixels import FrameSpec, ResizeSpec
from tspcli.video import DecodePool, Failed, Finished, Frames, VideoFile

_SUFFIXES = [".mp4", ".mkv", ".avi", ".ts", ".webm", ".mov", ".mpg", ".flv", ".y4m", ".txt", ""]
_ABSURD = [0, 1, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_FIELDS = (b"tkhd", b"mvhd", b"mdhd", b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"stss", b"elst",
           b"avc1", b"avcC", b"trak", b"moov", b"mdat", b"avih", b"strh", b"strf", b"idx1",
           b"\x1a\x45\xdf\xa3", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75")  # fmt: skip


def originals(folder: Path) -> list[bytes]:
    """Good videos in the usual containers and codecs."""
    return [
        make_video(folder / "a.mp4", n_frames=40).read_bytes(),
        make_video(
            folder / "b.mp4", n_frames=40, audio=True, container_options={"movflags": "faststart"}
        ).read_bytes(),
        make_video(folder / "c.mkv", n_frames=40).read_bytes(),
        make_video(folder / "d.avi", n_frames=40, codec="mpeg4").read_bytes(),
        make_video(folder / "e.ts", n_frames=40).read_bytes(),
        make_video(folder / "f.mov", n_frames=40, rotation_deg=90).read_bytes(),
        make_video(folder / "g.mkv", n_frames=40, codec="mpeg2video").read_bytes(),
    ]


def flipped(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 3, 20, 400])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncated(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def absurd(data: bytearray, rng: random.Random) -> None:
    """Sizes, counts and rates near the names of header fields that make no sense."""
    places = [at for name in _FIELDS if (at := data.find(name)) >= 0]
    for _ in range(rng.choice([1, 2, 4])):
        at = (rng.choice(places) if places else 0) + rng.randrange(-4, 96)
        at = min(max(at, 0), len(data) - 4)
        struct.pack_into(rng.choice([">I", "<I", ">H"]), data, at, rng.choice(_ABSURD) & 0xFFFF)
        if rng.random() < 0.5:
            struct.pack_into(">I", data, at, rng.choice(_ABSURD))


def boxes_swapped(data: bytearray, rng: random.Random) -> None:
    """Two boxes of an MP4 change places; in another container, two stretches of bytes do."""
    boxes = _boxes(bytes(data), 0, len(data))
    moov = next((b for b in boxes if data[b[0] + 4 : b[0] + 8] == b"moov"), None)
    if moov is not None and rng.random() < 0.7:
        inner = _boxes(bytes(data), moov[0] + 8, moov[1])
        boxes = inner if len(inner) > 1 else boxes
    if len(boxes) < 2:
        cuts = sorted(rng.randrange(len(data)) for _ in range(4))
        boxes = [(cuts[0], cuts[1]), (cuts[2], cuts[3])]
    first, second = sorted(rng.sample(boxes, 2))
    between = data[first[1] : second[0]]
    joined = data[second[0] : second[1]] + between + data[first[0] : first[1]]
    data[first[0] : second[1]] = joined


def mixed(data: bytearray, rng: random.Random) -> None:
    data[:] = mutate_bytes(bytes(data), rng) or b"\0"


def untouched(data: bytearray, rng: random.Random) -> None:
    """Only the file's name is wrong."""


_WAYS: list[Callable[[bytearray, random.Random], None]] = [
    flipped, truncated, absurd, boxes_swapped, mixed, untouched,
]  # fmt: skip


def _boxes(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    found = []
    while start + 8 <= end:
        size = struct.unpack_from(">I", data, start)[0]
        if size < 8 or start + size > end:
            break
        found.append((start, start + size))
        start += size
    return found


def spoil_videos(folder: Path, count: int, seed: int) -> list[Path]:
    """Write ``count`` spoilt videos."""
    rng = random.Random(seed)
    good = originals(folder)
    target = folder / "spoilt"
    target.mkdir()
    paths = []
    for number in range(count):
        data = bytearray(rng.choice(good))
        _WAYS[number % len(_WAYS)](data, rng)
        wrong = number % len(_WAYS) == _WAYS.index(untouched) or rng.random() < 0.1
        path = target / f"{number}{rng.choice(_SUFFIXES) if wrong else '.mp4'}"
        path.write_bytes(data)
        paths.append(path)
    return paths


@dataclass
class Tally:
    """How files ended.

    Attributes:
        ends: How often each reason, or ``features``, came up.
        unended: Files of which nothing was heard.
        hung: Files on which the time limit had to be used.
        crashed: Files that ended a decode process.
        faults: Files whose reason is a library's bare exception.
        slowest_s: The longest time from a file's first event to its last.
        peak_mb: The largest that a decode process was seen to have been, at the end of each file.
    """

    ends: Counter[str] = field(default_factory=Counter)
    unended: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_mb: float = 0.0


def decode_all(paths: list[Path], decoder: str, timeout_s: float = 20.0) -> Tally:
    """Decode files in a pool, one decoder or ``auto``, as a run does."""
    tally = Tally(unended=[path.name for path in paths])
    started: dict[str, float] = {}
    with DecodePool(
        [VideoFile(path, path.name) for path in paths],
        sampling=Sampling(),
        spec=FrameSpec(ResizeSpec(24, 32)),
        workers=2,
        decoder=decoder,
        timeout_s=timeout_s,
    ) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            name = event.job.key
            started.setdefault(name, time.monotonic())
            if isinstance(event, (Finished, Failed)):
                tally.peak_mb = max([tally.peak_mb, *map(_peak_mb, pool.pids)])
                tally.unended.remove(name)
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - started[name])
            if isinstance(event, Failed):
                assert event.error.reason in VIDEO_REASONS
                tally.ends[event.error.reason] += 1
                words = str(event.error)
                if "no frame within" in words:
                    tally.hung.append(name)
                if "decode process" in words:
                    tally.crashed.append(f"{name}: {words}")
                elif event.error.reason == "crashed":
                    tally.faults.append(f"{name}: {words}")
            elif isinstance(event, Finished):
                assert event.n_ticks > 0
                tally.ends["features"] += 1
    return tally


def _peak_mb(pid: int) -> float:
    """The most that a process has held since it started its program; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else 0.0
