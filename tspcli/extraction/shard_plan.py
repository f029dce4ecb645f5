"""Which shard does which videos, and in what order a run begins them."""

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
"""Reading the durations of at least so many is worth a message."""


def shard_path(out: Path, shard: tuple[int, int]) -> Path:
    """The store of one shard: ``feats.shard-2-of-8.h5`` for shard 2/8 of ``feats.h5``."""
    return out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}{out.suffix}")


@dataclass(frozen=True)
class ShardPlan:
    """Which shard does which videos. Every shard computes the complete plan, and all have to agree.

    Attributes:
        shards: The videos of each shard.
        n_unknown: Number of videos whose duration is unknown.
        weights: How long each video takes relative to the others, by key; empty if not computed.
    """

    shards: tuple[tuple[VideoFile, ...], ...]
    n_unknown: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_videos(self) -> int:
        """Number of videos of all shards."""
        return sum(map(len, self.shards))

    def facts(self, index: int) -> dict[str, Any]:
        """What the report of one shard, counted from 1, says about the plan."""
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
    """Plan shards that take about equally long.

    Args:
        videos: All videos.
        count: The number of shards.
        reporter: Gets a message if reading the durations takes a while.
    """
    if count == 1:
        return ShardPlan((tuple(videos),))
    return balance(videos, durations_ms(videos, reporter), count)


def durations_ms(videos: Sequence[VideoFile], reporter: Reporter) -> list[int | None]:
    """Durations from the videos' headers, in milliseconds; None where a header has none.

    Args:
        videos: The videos.
        reporter: Gets a message if that takes a while.
    """
    if len(videos) >= _MANY_VIDEOS:
        reporter.message(f"Reading the durations of {len(videos):,} videos.")
    return read_durations([video.path for video in videos])


def weigh(videos: Sequence[VideoFile], durations: Sequence[int | None]) -> dict[str, int]:
    """How long each video takes relative to the others, by key.

    That is its duration in milliseconds. Where it is unknown, the size of the file counts, at the
    others' milliseconds per byte.

    Args:
        videos: The videos.
        durations: Milliseconds of each, or None.
    """
    sizes = [file_size(video.path) for video in videos]
    known = [(d, size) for d, size in zip(durations, sizes, strict=True) if d is not None]
    total_ms, total_bytes = sum(d for d, _ in known), sum(size for _, size in known)
    # Integers, whose sums do not depend on their order.
    return {
        video.key: size * (total_ms or 1) // (total_bytes or 1) if duration is None else duration
        for video, duration, size in zip(videos, durations, sizes, strict=True)
    }


def balance(videos: Sequence[VideoFile], durations: Sequence[int | None], count: int) -> ShardPlan:
    """Give the longest video to the emptiest shard, then the next.

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
    """Refuse an output that cannot become a store, before anything is loaded.

    Raises:
        UsageError: If ``out`` is a folder, has too long a name, or is a file that is not HDF5:
            perhaps a video or a list, which ``--overwrite`` would destroy.
    """
    from tspcli.store.hdf5_file import is_hdf5

    if out.is_dir():
        raise UsageError(
            f"The output {out} is a folder; give a file, such as feats.h5.",
            option="--out",
            path=str(out),
        )
    if len(os.fsencode(report_path(out).name)) > _MAX_NAME_BYTES:
        raise UsageError(
            f"The name {out.name!r} is too long: that of its report is longer still.",
            option="--out",
            path=str(out),
        )
    if out.exists() and not is_hdf5(out):
        raise UsageError(
            f"The output {out} exists and is not an HDF5 file; it is left unchanged.",
            remedy="Choose another --out, or move this file away.",
            option="--out",
            path=str(out),
        )


def longest_first(
    videos: Sequence[VideoFile], weights: Mapping[str, int] | None = None
) -> list[VideoFile]:
    """The order in which a run begins its videos, so that no long one is left for the end.

    Args:
        videos: The videos.
        weights: How long each takes (:func:`weigh`). Without them the size of the file counts,
            which costs nothing to read: one encoder is equally fast in any order.
    """
    if weights is None:
        weights = {video.key: file_size(video.path) for video in videos}
    return sorted(videos, key=lambda video: (-weights[video.key], video.key))


def file_size(path: str | Path) -> int:
    """Bytes of a file; 0 if that is unknown, which the decoder will explain."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
