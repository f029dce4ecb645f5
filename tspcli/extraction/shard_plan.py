"""Which videos a run has to do, and which of them this shard does."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tspcli.core.progress import Reporter
from tspcli.core.run_dir import report_path
from tspcli.core.text import canonical_json
from tspcli.errors import UsageError
from tspcli.video import VideoFile
from tspcli.video.durations import read_durations

_MAX_NAME_BYTES = 255
_LISTED_VIDEOS = 10_000
_MANY_VIDEOS = 500
"""From so many on, reading their durations is worth a message."""


def shard_path(out: Path, shard: tuple[int, int]) -> Path:
    """The store of one shard: ``feats.shard-2-of-8.h5`` for shard 2/8 of ``feats.h5``."""
    return out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}{out.suffix}")


@dataclass(frozen=True)
class ShardPlan:
    """Which shard does which videos. Every shard makes the whole of it, and all have to agree.

    Attributes:
        shards: The videos of each shard.
        n_unknown: Videos whose duration is not known.
        weights: How long each video takes beside the others, by key; empty if nobody asked.
    """

    shards: tuple[tuple[VideoFile, ...], ...]
    n_unknown: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_videos(self) -> int:
        """The videos of all shards."""
        return sum(map(len, self.shards))

    def facts(self, index: int) -> dict[str, Any]:
        """What the report of one shard, counted from 1, says of the plan."""
        keys = sorted(video.key for shard in self.shards for video in shard)
        return {
            "index": index,
            "count": len(self.shards),
            "plan": self.digest,
            "n_videos": len(keys),
            # So that a merge can name what no shard has done.
            "keys": keys if len(keys) <= _LISTED_VIDEOS else None,
        }

    @property
    def digest(self) -> str:
        """sha256 of the keys by shard."""
        keys = [sorted(video.key for video in shard) for shard in self.shards]
        return hashlib.sha256(canonical_json(keys).encode()).hexdigest()


def plan_shards(videos: Sequence[VideoFile], count: int, reporter: Reporter) -> ShardPlan:
    """Shards that take about equally long.

    Args:
        videos: All videos.
        count: The number of shards.
        reporter: Is told when reading the durations takes a while.
    """
    if count == 1:
        return ShardPlan((tuple(videos),))
    return balance(videos, durations_ms(videos, reporter), count)


def durations_ms(videos: Sequence[VideoFile], reporter: Reporter) -> list[int | None]:
    """What the videos' headers say, in milliseconds; None where they say nothing.

    Args:
        videos: The videos.
        reporter: Is told when that takes a while.
    """
    if len(videos) >= _MANY_VIDEOS:
        reporter.message(f"Reading the durations of {len(videos):,} videos.")
    return read_durations([video.path for video in videos])


def weigh(videos: Sequence[VideoFile], durations: Sequence[int | None]) -> dict[str, int]:
    """How long each video takes beside the others, by key.

    That is its duration in milliseconds; one without counts by its size times the milliseconds a
    byte of the others.

    Args:
        videos: The videos.
        durations: Milliseconds of each, or None.
    """
    sizes = [file_size(video.path) for video in videos]
    known = [(d, size) for d, size in zip(durations, sizes, strict=True) if d is not None]
    total_ms, total_bytes = sum(d for d, _ in known), sum(size for _, size in known)
    # Whole numbers, whose sums do not depend on their order.
    return {
        video.key: size * (total_ms or 1) // (total_bytes or 1) if duration is None else duration
        for video, duration, size in zip(videos, durations, sizes, strict=True)
    }


def balance(videos: Sequence[VideoFile], durations: Sequence[int | None], count: int) -> ShardPlan:
    """The longest video goes to the emptiest shard, then the next.

    The order in which the videos were named makes no difference.

    Args:
        videos: All videos.
        durations: Milliseconds of each video, or None.
        count: The number of shards.
    """
    weights = weigh(videos, durations)
    loads = [(0, number) for number in range(count)]
    shards: list[list[VideoFile]] = [[] for _ in range(count)]
    for video in longest_first(videos, weights):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + max(1, weights[video.key]), number))
        shards[number].append(video)
    n_unknown = sum(duration is None for duration in durations)
    return ShardPlan(tuple(map(tuple, shards)), n_unknown, weights)


def check_out(out: Path) -> None:
    """Refuse an output that cannot be a store, before anything is loaded.

    Raises:
        UsageError: If ``out`` is a folder, has too long a name, or is a file that is no HDF5: a
            video or a list, perhaps, that ``--overwrite`` would destroy.
    """
    import h5py

    if out.is_dir():
        raise UsageError(
            f"The output {out} is a folder.", remedy="Name a file, such as --out feats.h5."
        )
    if len(os.fsencode(report_path(out).name)) > _MAX_NAME_BYTES:
        raise UsageError(
            f"The name {out.name!r} is too long: the report beside it needs room for its own.",
            remedy="Give --out a shorter name.",
        )
    if out.exists() and not h5py.is_hdf5(out):
        raise UsageError(
            f"The output {out} exists and is not an HDF5 file; it stays as it is.",
            remedy="Name another file, such as --out feats.h5, or move this one away.",
        )


def longest_first(
    videos: Sequence[VideoFile], weights: Mapping[str, int] | None = None
) -> list[VideoFile]:
    """The order in which a run starts its videos, so that no long one is left for the end.

    Args:
        videos: The videos.
        weights: How long each takes (:func:`weigh`). Without them size stands for duration, which
            is free to read: one encoder works through its videos in any order equally fast.
    """
    if weights is None:
        weights = {video.key: file_size(video.path) for video in videos}
    return sorted(videos, key=lambda video: (-weights[video.key], video.key))


def file_size(path: str | Path) -> int:
    """Bytes of a file; 0 if it cannot be told, which the decoder will then explain."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
